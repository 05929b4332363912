"""The socket to TWS: bytes into whole messages, messages out at the pace TWS takes them.

It knows how TWS frames messages and nothing of what they mean.
"""

import math
import selectors
import socket
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

# TWS takes 50 messages a second, as it counts them when they arrive, and then
# cuts the connection. So many at once and then evenly spaced, they stay below
# that even if the network holds some back for a tenth of a second.
MAX_SENDS_AT_ONCE: Final = 10
MAX_SENDS_PER_S: Final = 35
SLOW_SENDS_PER_S: Final = 10
# `messages` comes back at least this often, also when nothing arrives.
BREATH_S: Final = 1.0
# The largest message that answers a request of newshead's is far below it.
MAX_MESSAGE_BYTES: Final = 1 << 20


class TwsSocket:
    """The socket to TWS: every whole message in, paced messages out.

    It stands in for the library's Connection and EReader, which throw away
    everything received when a burst ends on a multiple of 4096 bytes and a
    second of quiet follows. The API thread owns the socket; `sendMsg`,
    `isConnected` and `disconnect` may be called from any thread and never wait.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._connection = connection
        self._received = bytearray()
        self._outbox: deque[bytes] = deque()
        self._unsent = b""
        self._sends_per_s = MAX_SENDS_PER_S
        # When the messages sent so far would have gone out one by one.
        self._paced_to = 0.0
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._ends_at = math.inf
        self._closed = False

    def isConnected(self) -> bool:
        """Whether the socket is open; that says nothing about TWS."""
        return not self._closed

    def sendMsg(self, message: bytes) -> None:
        """Puts a message on its way."""
        self._outbox.append(message)
        self._wake()

    def disconnect(self, within_s: float = 0.0) -> None:
        """Ends `messages`, at the latest in `within_s` seconds; sooner if all has been sent."""
        self._ends_at = time.monotonic() + within_s
        self._wake()

    def slow_down(self) -> None:
        """Sends fewer messages a second from now on. API thread."""
        self._sends_per_s = SLOW_SENDS_PER_S

    def messages(self) -> Iterator[bytes | None]:
        """Whole messages as they arrive, until either side ends the connection, and None in
        between, at least once a second. API thread.

        Raises
        ------
        OSError
            The connection broke.
        ValueError
            What arrives is not framed as TWS frames messages.
        """
        with selectors.DefaultSelector() as selector:
            selector.register(self._connection, selectors.EVENT_READ)
            selector.register(self._wake_in, selectors.EVENT_READ)
            while True:
                pause = self._send()
                if self._finished():
                    return
                events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)
                selector.modify(self._connection, events)
                pause = min(pause, self._ends_at - time.monotonic(), BREATH_S)
                selector.select(max(pause, 0.0))
                with suppress(BlockingIOError):
                    self._wake_in.recv(4096)
                with suppress(BlockingIOError):
                    data = self._connection.recv(1 << 18)
                    if not data:
                        return
                    self._received += data
                    yield from self._whole_messages()
                # After each read, so also while a message that never ends keeps arriving.
                yield None

    def close(self) -> None:
        """Closes the socket. API thread."""
        self._closed = True
        for each in (self._connection, self._wake_in, self._wake_out):
            each.close()

    def _wake(self) -> None:
        # A full pipe wakes too, and one that is closed has nobody left to wake.
        with suppress(OSError):
            self._wake_out.send(b"\0")

    def _finished(self) -> bool:
        now = time.monotonic()
        return now >= self._ends_at or (
            self._ends_at < math.inf and not self._outbox and not self._unsent
        )

    def _send(self) -> float:
        """Sends what may be sent now; returns the seconds until more may be, inf if none waits."""
        while self._unsent or self._outbox:
            if not self._unsent:
                now = time.monotonic()
                early = self._paced_to - now - (MAX_SENDS_AT_ONCE - 1) / self._sends_per_s
                if early > 0:
                    return early
                self._paced_to = max(self._paced_to, now) + 1 / self._sends_per_s
                self._unsent = self._outbox.popleft()
            try:
                self._unsent = self._unsent[self._connection.send(self._unsent) :]
            except BlockingIOError:
                break
        return math.inf

    def _whole_messages(self) -> Iterator[bytes]:
        start, end = 0, len(self._received)
        while end - start >= 4:
            size = int.from_bytes(self._received[start : start + 4], "big")
            if size > MAX_MESSAGE_BYTES:
                raise ValueError(f"a message of {size} bytes")
            if end - start - 4 < size:
                break
            yield bytes(self._received[start + 4 : start + 4 + size])
            start += 4 + size
        del self._received[:start]
