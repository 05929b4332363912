"""How fast newshead is, measured beside its references. `python -m benchmarks` runs it all."""
