"""The socket to TWS: bytes into whole messages, messages out at the pace TWS takes them.

It knows how TWS frames messages and nothing of what they mean.
"""

import math
import selectors
import socket
import struct
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
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
# A few milliseconds' work when ticks pour in.
READ_BYTES: Final = 1 << 16
# What stands before each message.
_LENGTH: Final = struct.Struct("!I")


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
        self._outbox: deque[bytes] = deque()
        # What is put on its way in `first`, while that lasts.
        self._hurried: list[bytes] | None = None
        self._unsent = b""
        self._sends_per_s = MAX_SENDS_PER_S
        # When the messages sent so far would have gone out one by one.
        self._paced_to = 0.0
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(connection, selectors.EVENT_READ)
        self._selector.register(self._wake_in, selectors.EVENT_READ)
        self._ends_at = math.inf
        self._closed = False
        # The bytes of the messages that `messages` yielded last, with their lengths.
        self.taken = b""

    def isConnected(self) -> bool:
        """Return whether the socket is open; that says nothing about TWS."""
        return not self._closed

    def sendMsg(self, message: bytes) -> None:
        """Put a message on its way."""
        if self._hurried is not None:
            self._hurried.append(message)
            return
        self._outbox.append(message)
        self._wake()

    @contextmanager
    def first(self) -> Iterator[None]:
        """Let the messages that are put on their way meanwhile pass those that may not be sent yet.
        One thread at a time."""
        hurried: list[bytes] = []
        self._hurried = hurried
        try:
            yield
        finally:
            self._hurried = None
            behind = self._sent_at_once()
            for place, message in enumerate(hurried, behind):
                self._outbox.insert(place, message)
            self._wake()

    def _sent_at_once(self) -> int:
        """Return how many messages may be sent now."""
        ahead = (self._paced_to - time.monotonic()) * self._sends_per_s
        return max(0, MAX_SENDS_AT_ONCE - math.ceil(max(ahead, 0.0)))

    def disconnect(self, within_s: float = 0.0) -> None:
        """End `messages`, at the latest in `within_s` seconds; sooner if all has been sent."""
        self._ends_at = time.monotonic() + within_s
        self._wake()

    def idle(self) -> bool:
        """Return whether no message waits to be sent. Any thread."""
        return not self._outbox and not self._unsent

    def slow_down(self) -> None:
        """Send fewer messages a second from now on. API thread."""
        self._sends_per_s = SLOW_SENDS_PER_S

    def messages(self) -> Iterator[list[bytes]]:
        """Yield the whole messages of each read, until either side ends the connection, and an
        empty list in between, at least once a second. API thread.

        Raises
        ------
        OSError
            The connection broke.
        ValueError
            What arrives is not framed as TWS frames messages.
        """
        received = b""
        while True:
            pause = self._send()
            if self._finished():
                return
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)
            self._selector.modify(self._connection, events)
            pause = min(pause, self._ends_at - time.monotonic(), BREATH_S)
            selected = self._selector.select(max(pause, 0.0))
            ready = [key.fileobj for key, events in selected if events & selectors.EVENT_READ]
            messages: list[bytes] = []
            with suppress(BlockingIOError):
                if self._wake_in in ready:
                    self._wake_in.recv(4096)
                if self._connection in ready:
                    data = self._connection.recv(READ_BYTES)
                    if not data:
                        return
                    received += data
                    messages, rest = whole_messages(received)
                    self.taken = received[: len(received) - len(rest)]
                    received = rest
            # After each read, so also while a message that never ends keeps arriving.
            yield messages
            _refuse_too_long(received)

    def close(self) -> None:
        """Close the socket. API thread."""
        self._closed = True
        for each in (self._selector, self._connection, self._wake_in, self._wake_out):
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
        """Send what may be sent now; return the seconds until more may be, inf if none waits."""
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


def framed(messages: Iterable[bytes]) -> bytes:
    """Return messages as they come from the socket, with their lengths."""
    return b"".join(_LENGTH.pack(len(message)) + message for message in messages)


def whole_messages(received: bytes) -> tuple[list[bytes], bytes]:
    """Return the messages that have arrived whole, and what has arrived of the next."""
    messages = []
    length_at, size = _LENGTH.unpack_from, _LENGTH.size
    start, end = 0, len(received)
    while (begin := start + size) <= end:
        (length,) = length_at(received, start)
        if begin + length > end:
            break
        start = begin + length
        messages.append(received[begin:start])
    return messages, received[start:]


def _refuse_too_long(begun: bytes) -> None:
    if len(begun) >= _LENGTH.size:
        (length,) = _LENGTH.unpack_from(begun)
        if length > MAX_MESSAGE_BYTES:
            raise ValueError(f"a message of {length} bytes")
