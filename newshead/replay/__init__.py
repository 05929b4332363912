"""What would have been: days from files and stored sessions, judged by the alert rule as it is and
as it might be. `python -m newshead.replay` runs it."""
