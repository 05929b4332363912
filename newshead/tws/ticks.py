"""The tick messages that TWS sends all day, read without IBKR's decoder.

The decoder takes many times as long for each. It stays the judge all the same:
what is not recognised here to the letter is left to it. Trades are the exception:
each keeps the size of its own message, which the decoder hands on in a callback of its
own, so whatever TICK_PRICE the decoder can read is read here too, once what stands behind it
in its frame is cut off.
"""

import math
from collections.abc import Callable
from decimal import ROUND_HALF_UP, Decimal
from typing import Final, TypeAlias

from ibapi.const import UNSET_DECIMAL
from ibapi.decoder import Decoder
from ibapi.message import IN
from ibapi.ticktype import TickTypeEnum
from ibapi.utils import BadMessage, decode

# From these server versions on a message begins with its id as 4 bytes, and
# ticks come as protobuf, which ids above 200 mark.
RAW_ID_SERVER_VERSION: Final = 201
PROTOBUF_TICKS_SERVER_VERSION: Final = 206
PROTOBUF_ID: Final = 200

LIBRARY_KNOWS_PROTOBUF: Final = hasattr(Decoder, "processProtoBuf")

TRADE_SIZES: Final = (TickTypeEnum.LAST_SIZE, TickTypeEnum.DELAYED_LAST_SIZE)
TRADE_TIMES: Final = (TickTypeEnum.LAST_TIMESTAMP, TickTypeEnum.DELAYED_LAST_TIMESTAMP)

# What else is told of: the shares traded today, and whether trading is halted.
DAY_VOLUMES: Final = (TickTypeEnum.VOLUME, TickTypeEnum.DELAYED_VOLUME)
HALTS: Final = (TickTypeEnum.HALTED, TickTypeEnum.DELAYED_HALTED)
_SIZES: Final = frozenset((*TRADE_SIZES, *DAY_VOLUMES))

# From here on a size is no number of shares but a gateway's way to say "missing".
MAX_VOLUME: Final = 2**31 - 1
# A longer one may be above it.
_PLAIN_SIZE_DIGITS: Final = 9
# What is raised by a message that makes no sense, here and in the decoder.
_UNREADABLE: Final = (BadMessage, ValueError, ArithmeticError)

# Request id, tick type and, of a TICK_PRICE, its price (USD) and size (shares); of a trade's
# lone size and of a day's volume the shares; of a trade's time its Unix seconds (int) and of a
# halt its kind in the price's place.
Tick: TypeAlias = tuple[int, int, float | None, int]
# None leaves the message to IBKR's decoder.
TickReader: TypeAlias = Callable[[bytes], Tick | None]


def tick_reader(server_version: int) -> TickReader:
    """Return what reads TICK_PRICE, TICK_SIZE, TICK_GENERIC and TICK_STRING of a server version.

    What a tick does not tell is checked all the same: a message that the decoder
    would refuse is left to it. What is missing in protobuf reads as 0, which is no
    request, no trade's tick type and no price.
    """
    if server_version >= PROTOBUF_TICKS_SERVER_VERSION and LIBRARY_KNOWS_PROTOBUF:
        return _protobuf_reader()
    return _read_raw_id_text if server_version >= RAW_ID_SERVER_VERSION else _read_text


def _read_text(message: bytes) -> Tick | None:
    fields = message.split(b"\0")
    try:
        # The fields: kind, version 6, and those of the kind, with a NUL after each.
        match fields:
            case [b"1", b"6", req_id, tick_type, price, size, attributes, b""]:  # TICK_PRICE
                int(attributes)
                return int(req_id), int(tick_type), float(price), _size(size)
            case [b"2", b"6", req_id, tick_type, size, b""]:  # TICK_SIZE
                number = int(tick_type)
                if number in _SIZES:
                    return int(req_id), number, None, _size(size) if size else 0
                float(size)
                return _sign_of_life(int(req_id), number)
            case [b"45", b"6", req_id, tick_type, value, b""]:  # TICK_GENERIC
                return _generic(int(req_id), int(tick_type), float(value))
            case [b"46", b"6", req_id, tick_type, value, b""]:  # TICK_STRING
                return _string(int(req_id), int(tick_type), value)
        return _read_odd_price(fields)
    except _UNREADABLE:
        return _read_odd_price(fields)


def _read_odd_price(fields: list[bytes]) -> Tick | None:
    """Read a TICK_PRICE in an unusual form, field by field as the decoder does."""
    try:
        if int(fields[0]) != IN.TICK_PRICE:
            return None
        values = iter(fields[1:-1])
        decode(int, values)
        req_id, tick_type = decode(int, values), decode(int, values)
        price, size = decode(float, values), decode(Decimal, values)
        decode(int, values)
    except _UNREADABLE:
        return None
    if next(values, None) is not None:
        # Another message may stand behind it.
        return None
    return req_id, tick_type, price, shares(size)


def _read_raw_id_text(message: bytes) -> Tick | None:
    return _read_text(b"%d\0" % int.from_bytes(message[:4], "big") + message[4:])


def _protobuf_reader() -> TickReader:
    # Releases of the library that speak text alone come without these.
    from google.protobuf.message import DecodeError
    from ibapi.protobuf.TickGeneric_pb2 import TickGeneric
    from ibapi.protobuf.TickPrice_pb2 import TickPrice
    from ibapi.protobuf.TickSize_pb2 import TickSize
    from ibapi.protobuf.TickString_pb2 import TickString

    kinds = (IN.TICK_PRICE, IN.TICK_SIZE, IN.TICK_GENERIC, IN.TICK_STRING)
    price_id, size_id, generic_id, string_id = ((PROTOBUF_ID + k).to_bytes(4, "big") for k in kinds)
    classes = (TickPrice, TickSize, TickGeneric, TickString)
    parse_price, parse_size, parse_generic, parse_string = (each.FromString for each in classes)

    def read(message: bytes) -> Tick | None:
        kind, body = message[:4], message[4:]
        try:
            if kind == price_id:
                tick = parse_price(body)
                size = tick.size
                # An empty size is an error unless it is missing altogether.
                volume = _size(size) if size or tick.HasField("size") else 0
                return tick.reqId, tick.tickType, tick.price, volume
            if kind == size_id:
                tick = parse_size(body)
                tick_type, size = tick.tickType, tick.size
                if tick_type in _SIZES:
                    volume = _size(size) if size or tick.HasField("size") else 0
                    return tick.reqId, tick_type, None, volume
                float(size)
                return _sign_of_life(tick.reqId, tick_type)
            if kind == string_id:
                tick = parse_string(body)
                return _string(tick.reqId, tick.tickType, tick.value)
            if kind != generic_id:
                return None
            tick = parse_generic(body)
        except (DecodeError, *_UNREADABLE):
            return None
        return _generic(tick.reqId, tick.tickType, tick.value)

    return read


def _sign_of_life(req_id: int, tick_type: int) -> Tick | None:
    # With this type the decoder does not call every callback.
    return (req_id, tick_type, None, 0) if tick_type != TickTypeEnum.NOT_SET else None


def _generic(req_id: int, tick_type: int, value: float) -> Tick | None:
    if tick_type in HALTS and math.isfinite(value):
        return req_id, tick_type, value, 0
    return _sign_of_life(req_id, tick_type)


def _string(req_id: int, tick_type: int, value: bytes | str) -> Tick | None:
    if tick_type in TRADE_TIMES:
        return req_id, tick_type, int(value), 0
    return _sign_of_life(req_id, tick_type)


def shares(size: Decimal) -> int:
    """Return a trade's size in whole shares: at least 1, but 0 where the size is missing."""
    size = Decimal(size)
    if not size.is_finite() or size == UNSET_DECIMAL or not 0 < size < MAX_VOLUME:
        return 0
    return max(1, int(size.quantize(Decimal(1), ROUND_HALF_UP)))


def _size(text: str | bytes) -> int:
    if len(text) <= _PLAIN_SIZE_DIGITS and text.isdigit():
        return int(text)
    return shares(Decimal(text if isinstance(text, str) else text.decode()))
