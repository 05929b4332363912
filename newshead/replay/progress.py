"""How far a long run is, on standard error."""

import sys
import time
from typing import Final

QUIET_S: Final = 3.0
TERMINAL_EVERY_S: Final = 0.5
FILE_EVERY_S: Final = 30.0


class Progress:
    """Tells how far it is once it takes long: on a terminal in one line, elsewhere now and then."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._next = time.monotonic() + QUIET_S
        self._width = 0

    def __call__(self, what: str, share: float) -> None:
        """Tell that this share, 0 to 1, is done."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + (TERMINAL_EVERY_S if self._terminal else FILE_EVERY_S)
        line = f"{what}: {min(share, 1.0):.0%}"
        self._write(f"\r{line:<{self._width}}" if self._terminal else f"{line}\n")
        self._width = max(self._width, len(line))

    def end(self) -> None:
        """Clear the terminal's line."""
        if self._terminal and self._width:
            self._write(f"\r{'':<{self._width}}\r")

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()
