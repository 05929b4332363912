"""The messages that `ticks` leaves to IBKR's decoder, which calls the callbacks.

No socket, no clock and no lock.
"""

import itertools
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from ibapi.decoder import Decoder
from ibapi.message import IN

from newshead.tws import failures
from newshead.tws.ticks import (
    LIBRARY_KNOWS_PROTOBUF,
    PROTOBUF_ID,
    RAW_ID_SERVER_VERSION,
    Tick,
    TickReader,
)

logger = logging.getLogger(__name__)

# A greater number is no kind of message: what arrives is not framed as TWS frames it.
MAX_KIND: Final = 999
# The fields of the messages that the tick reader knows in text form, behind their ids.
_TICK_FIELDS: Final = {
    IN.TICK_PRICE: 6,
    IN.TICK_SIZE: 4,
    IN.TICK_GENERIC: 4,
    IN.TICK_STRING: 4,
}
# What newshead cannot do without.
NEEDED: Final = frozenset({*_TICK_FIELDS, IN.ERR_MSG, IN.NEXT_VALID_ID, IN.MANAGED_ACCTS})
_NAMES: Final = {int(getattr(IN, name)): name for name in dir(IN) if name.isupper()}
# The bytes of a protobuf field by its wire type, where the type alone tells.
_FIXED_BYTES: Final = {1: 8, 5: 4}


class _Message(NamedTuple):
    """A message, without its length: the number of its kind, and where its body begins."""

    data: bytes
    kind: int
    begin: int
    protobuf: bool

    @property
    def name(self) -> str:
        return _NAMES.get(self.kind, str(self.kind))


class MessageReader:
    """What TWS sends on one connection, apart from the ticks that the tick reader reads.

    A message that cannot be read ends the connection only if newshead needs its kind.
    """

    def __init__(
        self,
        decoder: Decoder,
        server_version: int,
        read_tick: TickReader,
        on_skipped: Callable[[int], None],
    ) -> None:
        """
        Parameters
        ----------
        decoder
            IBKR's; calls the callbacks.
        read_tick
            What reads the tick messages of the server version.
        on_skipped
            Called with the kind of each message that was skipped.
        """
        self._decoder = decoder
        self._raw_ids = server_version >= RAW_ID_SERVER_VERSION
        self._read_tick = read_tick
        self._on_skipped = on_skipped
        # How often each kind of thing was skipped.
        self.skipped: Counter[str] = Counter()

    def describe_skipped(self) -> str:
        """Return what was skipped, as a list with counts."""
        return ", ".join(f"{count} {what}" for what, count in sorted(self.skipped.items()))

    def read(self, data: bytes) -> Iterator[Tick]:
        """Read the message of a frame, and others that stand behind it; yield the ticks in it.

        Raises
        ------
        GatewayError
            It is none of TWS's, or of a kind that newshead needs and unreadable.
        """
        try:
            message = self._message(data)
        except ValueError as problem:
            raise failures.unreadable("message of no kind", problem) from problem
        try:
            tick, rest = self._read_first(message)
        except Exception as problem:
            logger.debug("Unreadable message %r", data[:200], exc_info=True)
            if message.kind in NEEDED:
                raise failures.unreadable(f"message of kind {message.name}", problem) from problem
            self._skip(message, problem)
            return
        if tick is not None:
            yield tick
        while rest:
            # A newer TWS may have put a field more there: that it cannot be read ends nothing.
            try:
                behind = self._message(rest)
                tick, rest = self._read_first(behind)
            except Exception as problem:
                self._leave(message, rest, problem)
                return
            if tick is not None:
                yield tick
            message = behind

    def _message(self, data: bytes) -> _Message:
        """Tell a message's kind.

        Raises
        ------
        ValueError
            It has none.
        """
        if self._raw_ids:
            number, begin = int.from_bytes(data[:4], "big"), 4
        else:
            text, _, _ = data.partition(b"\0")
            number, begin = int(text), len(text) + 1
        protobuf = number > PROTOBUF_ID and LIBRARY_KNOWS_PROTOBUF
        if not 0 < number <= MAX_KIND or len(data) < begin:
            raise ValueError(f"it begins with {data[:20]!r}")
        return _Message(data, number - PROTOBUF_ID * protobuf, begin, protobuf)

    def _read_first(self, message: _Message) -> tuple[Tick | None, bytes]:
        """Read a message; return the tick that it is, and what stands behind it in its frame."""
        data, kind, begin, protobuf = message
        body = data[begin:]
        if protobuf:
            end = _protobuf_end(body)
        elif kind in _TICK_FIELDS:
            end = _fields_end(body.split(b"\0")[: _TICK_FIELDS[kind]])
        else:
            return None, body[self._decode_text(kind, body) :]
        rest = body[end:]
        if rest and not end and kind in NEEDED:
            raise ValueError("it is empty")
        if kind in _TICK_FIELDS:
            tick = self._read_tick(data[: begin + end])
            if tick is not None:
                return tick, rest
        if protobuf:
            self._decoder.msgId2handleInfoProtoBuf[kind].processMeth(self._decoder, body[:end])
        else:
            self._decode_text(kind, body[:end])
        return None, rest

    def _decode_text(self, kind: int, body: bytes) -> int:
        """Hand a message in text form to IBKR's decoder; return how long it is.

        The decoder's own entrance would only log what it does not know, and report what it
        cannot read as a code of TWS's.
        """
        handle = self._decoder.msgId2handleInfo[kind]
        fields = body.split(b"\0")[:-1]
        # Releases without protobuf are given the id too.
        begin = () if LIBRARY_KNOWS_PROTOBUF else (b"%d" % kind,)
        if handle.wrapperMeth is None:
            left = iter(fields)
            handle.processMeth(self._decoder, itertools.chain(begin, left))
            return _fields_end(fields[: len(fields) - len(list(left))])
        # The version's field stands for `self`.
        count = len(handle.wrapperParams or fields)
        if len(fields) < count:
            raise ValueError(f"{len(fields)} fields instead of {count}")
        self._decoder.interpretWithSignature((*begin, *fields[:count]), handle)
        return _fields_end(fields[:count])

    def _skip(self, message: _Message, problem: Exception) -> None:
        self._count(
            f"{message.name} messages",
            f"Skipped a message of kind {message.name}, which newshead does not need: IBKR's "
            f"client cannot read it ({problem!r}).",
        )
        self._on_skipped(message.kind)

    def _leave(self, message: _Message, rest: bytes, problem: Exception) -> None:
        self._count(
            f"pieces behind {message.name} messages",
            f"Skipped {len(rest)} bytes behind a message of kind {message.name}: they are no "
            f"message that can be read ({problem!r}).",
        )

    def _count(self, what: str, line: str) -> None:
        level = logging.DEBUG if self.skipped[what] else logging.WARNING
        logger.log(level, "%s Others like it are counted.", line)
        self.skipped[what] += 1


def _fields_end(fields: list[bytes]) -> int:
    """Return the length of text fields, with a NUL behind each."""
    return sum(len(field) + 1 for field in fields)


def _protobuf_end(body: bytes) -> int:
    """Return where a protobuf message ends: at a field number 0, which no message has.

    The id of a message that stands behind it begins with a byte 0.
    """
    at, size = 0, len(body)
    while at < size and body[at]:
        tag, at = _varint(body, at)
        wire_type = tag & 7
        if wire_type == 0:
            _, at = _varint(body, at)
        elif wire_type == 2:
            length, at = _varint(body, at)
            at += length
        elif wire_type in _FIXED_BYTES:
            at += _FIXED_BYTES[wire_type]
        else:
            return size
    return min(at, size)


def _varint(body: bytes, at: int) -> tuple[int, int]:
    """Return a number of variable length, and where the next thing begins."""
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(body):
            break
        byte = body[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
    return number, at
