"""A connection to TWS as several threads see it: how far it has come, and why it ended.

The rules stand in `link`; here are the lock and the waiting.
"""

import threading
from collections.abc import Callable
from typing import Any

from newshead.tws.durations import Durations
from newshead.tws.failures import GatewayError
from newshead.tws.link import Change, Link


class Attempt:
    """A connection attempt, which either becomes ready or fails, and what becomes of it."""

    def __init__(self, durations: Durations, changed: Callable[[Change], None]) -> None:
        """
        Parameters
        ----------
        durations
            The link's.
        changed
            Called with each change of the state, on the thread that made it; must not raise.
        """
        self._changed = changed
        self._decided = threading.Event()
        self.lock = threading.RLock()
        self.link = Link(durations)
        # Whether TWS has answered the handshake.
        self.answered = False
        # Why it failed or ended; the first reason stands.
        self.failure: GatewayError | None = None

    @property
    def decided(self) -> bool:
        """Whether it has become ready or has failed."""
        return self._decided.is_set()

    def step(self, step: Callable[..., Change | None], *details: Any) -> bool:
        """Let the link take a step; return whether its state changed."""
        with self.lock:
            change = step(*details)
        if change is not None:
            self._changed(change)
        return change is not None

    def succeed(self) -> None:
        """Note that the connection is ready."""
        self._decided.set()

    def fail(self, failure: GatewayError) -> None:
        """Note why the connection failed or ended."""
        with self.lock:
            if self.failure is None:
                self.failure = failure
            self._decided.set()

    def wait(self, timeout_s: float) -> None:
        """Wait until it is decided, or for so many seconds. Blocks."""
        self._decided.wait(timeout_s)

    def decide(self, failure: Callable[[], GatewayError]) -> bool:
        """Return whether it became ready; undecided, it fails with `failure`."""
        with self.lock:
            if not self.decided:
                self.fail(failure())
            return self.failure is None
