"""The page's connections: each has its time to ask, and there is always room for the next."""

import asyncio
import logging
import time
from collections import defaultdict
from typing import ClassVar, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

from newshead.outage import Repeated

logger = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 200
# The head of a request has arrived whole so long after its connection began, or the last answer
# ended.
REQUEST_S: Final = 10.0


class GuardedProtocol(H11Protocol):
    """One connection; all of a server share `misuse`."""

    misuse: ClassVar[defaultdict[str, Repeated]]
    began: float
    _late: asyncio.TimerHandle | None = None

    @property
    def waits(self) -> bool:
        """Whether its request has not come yet."""
        return self._late is not None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Make room for it, if need be."""
        others = [each for each in self.connections if isinstance(each, GuardedProtocol)]
        super().connection_made(transport)
        self.began = self.loop.time()
        self._wait()
        if len(others) >= MAX_CONNECTIONS:
            self._log_misuse(f"more than {MAX_CONNECTIONS} connections at once")
            # Whoever says nothing, then the oldest viewer: a browser comes back by itself.
            min(others, key=lambda other: (not other.waits, other.began)).transport.abort()

    def data_received(self, data: bytes) -> None:
        """Wait no more once a request has come."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._wait_no_more()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._wait_no_more()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request."""
        self._log_misuse("what is no HTTP")
        super().send_400_response(msg)

    def _wait(self) -> None:
        self._wait_no_more()
        self._late = self.loop.call_later(REQUEST_S, self._end)

    def _wait_no_more(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _end(self) -> None:
        self._log_misuse(f"no request within {REQUEST_S:.0f} s")
        self.transport.abort()

    def _log_misuse(self, kind: str) -> None:
        if count := self.misuse[kind].happens(time.monotonic()):
            logger.info("The page turned away: %s (%d times).", kind, count)


def guarded_protocol() -> type[H11Protocol]:
    """Return the protocol for one server."""

    class Guarded(GuardedProtocol):
        misuse: ClassVar[defaultdict[str, Repeated]] = defaultdict(Repeated)

    return Guarded
