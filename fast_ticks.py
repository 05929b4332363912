"""The tick messages that TWS sends all day, read without IBKR's decoder.

It takes many times as long for them. It stays the judge all the same: what is
not recognised here to the letter is left to it.
"""

from collections.abc import Callable
from typing import Final, TypeAlias

from ibapi.message import IN

# From this server version on a message begins with its id as 4 bytes, and ids
# above 200 mark protobuf.
RAW_ID_SERVER_VERSION: Final = 201
PROTOBUF_ID: Final = 200

# What stands before the fields of each tick message in text.
_VERSION: Final = b"6"
# Longer ones can be TWS's ways to say that a size is missing.
_MAX_SIZE_DIGITS: Final = 9

# Request id, tick type and, of a TICK_PRICE, its price (USD) and its size (shares).
Tick: TypeAlias = tuple[int, int, float | None, int]
_Reader: TypeAlias = Callable[[bytes], Tick]


class FastTicks:
    """Reads TICK_PRICE, TICK_SIZE, TICK_GENERIC and TICK_STRING, in text and in protobuf.

    A TICK_PRICE with a fraction of a share is left to the decoder, and so is its rounding.
    """

    def __init__(self, server_version: int) -> None:
        self._raw_ids = server_version >= RAW_ID_SERVER_VERSION
        readers = _TEXT | _protobuf_readers() if self._raw_ids else _TEXT
        self._readers = {self._spelled(number): reader for number, reader in readers.items()}

    def read(self, message: bytes) -> Tick | None:
        """What a message says; None leaves it to IBKR's decoder. Raises nothing."""
        if self._raw_ids:
            kind, body = message[:4], message[4:]
        else:
            kind, _, body = message.partition(b"\0")
        reader = self._readers.get(kind)
        if reader is None:
            return None
        try:
            tick = reader(body)
        except Exception:
            return None
        # The decoder takes -1 for a type that is not set.
        return tick if tick[1] >= 0 else None

    def _spelled(self, number: int) -> bytes:
        return number.to_bytes(4, "big") if self._raw_ids else b"%d" % number


def _price(body: bytes) -> Tick:
    version, req_id, type_, price, size, attributes, end = body.split(b"\0")
    int(attributes)
    if version != _VERSION or end:
        raise ValueError
    return int(req_id), int(type_), float(price), _shares(size.decode())


def _size(body: bytes) -> Tick:
    version, req_id, type_, size, end = body.split(b"\0")
    if version != _VERSION or end or not _is_number(size.decode()):
        raise ValueError
    return int(req_id), int(type_), None, 0


def _generic(body: bytes) -> Tick:
    version, req_id, type_, value, end = body.split(b"\0")
    float(value)
    if version != _VERSION or end:
        raise ValueError
    return int(req_id), int(type_), None, 0


def _string(body: bytes) -> Tick:
    version, req_id, type_, _, end = body.split(b"\0")
    if version != _VERSION or end:
        raise ValueError
    return int(req_id), int(type_), None, 0


_TEXT: Final[dict[int, _Reader]] = {
    IN.TICK_PRICE: _price,
    IN.TICK_SIZE: _size,
    IN.TICK_GENERIC: _generic,
    IN.TICK_STRING: _string,
}


def _protobuf_readers() -> dict[int, _Reader]:
    # Releases of the library that speak text only come without these.
    from ibapi.protobuf.TickGeneric_pb2 import TickGeneric
    from ibapi.protobuf.TickPrice_pb2 import TickPrice
    from ibapi.protobuf.TickSize_pb2 import TickSize
    from ibapi.protobuf.TickString_pb2 import TickString

    def price(body: bytes) -> Tick:
        tick = TickPrice.FromString(body)
        return tick.reqId, tick.tickType, tick.price, _shares(tick.size)

    def size(body: bytes) -> Tick:
        tick = TickSize.FromString(body)
        if not _is_number(tick.size):
            raise ValueError
        return tick.reqId, tick.tickType, None, 0

    def generic(body: bytes) -> Tick:
        tick = TickGeneric.FromString(body)
        return tick.reqId, tick.tickType, None, 0

    def string(body: bytes) -> Tick:
        tick = TickString.FromString(body)
        return tick.reqId, tick.tickType, None, 0

    return {
        PROTOBUF_ID + IN.TICK_PRICE: price,
        PROTOBUF_ID + IN.TICK_SIZE: size,
        PROTOBUF_ID + IN.TICK_GENERIC: generic,
        PROTOBUF_ID + IN.TICK_STRING: string,
    }


def _shares(size: str) -> int:
    if not size.isdecimal() or len(size) > _MAX_SIZE_DIGITS:
        raise ValueError
    return int(size)


def _is_number(text: str) -> bool:
    return text.isdecimal() or text.replace(".", "", 1).isdecimal()
