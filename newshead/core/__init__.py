"""The decisions of the daemon as plain objects: no I/O, no clock, no log; `now` is handed in."""
