"""A TCP server for a few clients of this machine, which strangers cannot use up.

Its connections are capped, and each has its time to ask: who keeps silent is cut off, and gives
way to whoever comes next. Each client has a thread of its own.
"""

import logging
import socket
import socketserver
import threading
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from newshead.outage import Repeated

logger = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 32
# A request has arrived whole so long after its connection was accepted.
REQUEST_S: Final = 5.0
# So long a known client may keep its connection between two requests.
IDLE_S: Final = 60.0


@dataclass
class _Wait:
    """A connection whose request is waited for, until a monotonic time."""

    until: float
    known: bool


class GuardedServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """The server; `name` is what the log calls it."""

    name = "server"
    daemon_threads = True
    # A burst of connections is accepted, and judged, instead of waiting with the system.
    request_queue_size = 128

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._guard = threading.Lock()
        # None: its request is being answered.
        self._open: dict[socket.socket, _Wait | None] = {}
        self._misuse: defaultdict[str, Repeated] = defaultdict(Repeated)
        super().__init__(*arguments, **named)

    @property
    def connections(self) -> list[socket.socket]:
        """The connections that are open."""
        with self._guard:
            return list(self._open)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give a new connection its thread, if need be in place of the one silent for longest."""
        with self._guard:
            waits = [(w.known, w.until, c) for c, w in self._open.items() if w is not None]
            full = len(self._open) >= MAX_CONNECTIONS
            # The new one itself where all others are being answered.
            ended = min(waits, key=lambda wait: wait[:2])[2] if full and waits else request
            if full:
                self._open.pop(ended, None)
            if ended is not request or not full:
                self._open[request] = _Wait(time.monotonic() + REQUEST_S, known=False)
        if full:
            self.log_misuse(f"more than {MAX_CONNECTIONS} connections at once")
            _cut(ended)
        if full and ended is request:
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        with self._guard:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Cut off whoever has not asked in time. Called twice a second."""
        super().service_actions()
        now = time.monotonic()
        with self._guard:
            late = {c: w for c, w in self._open.items() if w is not None and w.until < now}
            for connection in late:
                del self._open[connection]
        for connection, wait in late.items():
            _cut(connection)
            if not wait.known:
                self.log_misuse(f"no request within {REQUEST_S:.0f} s")

    def answering(self, connection: socket.socket) -> None:
        """Note that a known client's request has arrived whole."""
        self._set(connection, None)

    def answered(self, connection: socket.socket) -> None:
        """Note that it has its answer, and may ask again."""
        self._set(connection, _Wait(time.monotonic() + IDLE_S, known=True))

    def _set(self, connection: socket.socket, wait: _Wait | None) -> None:
        with self._guard:
            if connection in self._open:
                self._open[connection] = wait

    def log_misuse(self, kind: str, detail: str = "") -> None:
        """Log what a stranger did: one line a minute per kind, with the newest one's detail."""
        with self._guard:
            count = self._misuse[kind].happens(time.monotonic())
        if count:
            logger.info("The %s turned away: %s%s (%d times).", self.name, kind, detail, count)


def _cut(connection: socket.socket) -> None:
    """End a connection under its thread, which then closes it."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
