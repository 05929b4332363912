"""The tick messages that TWS sends all day, read without IBKR's decoder.

The decoder takes many times as long for each. It stays the judge all the same:
what is not recognised here to the letter is left to it.
"""

from collections.abc import Callable
from typing import Final, TypeAlias

from ibapi.decoder import Decoder
from ibapi.message import IN
from ibapi.ticktype import TickTypeEnum

# From these server versions on a message begins with its id as 4 bytes, and
# ticks come as protobuf, which ids above 200 mark.
RAW_ID_SERVER_VERSION: Final = 201
PROTOBUF_TICKS_SERVER_VERSION: Final = 206
PROTOBUF_ID: Final = 200

LIBRARY_KNOWS_PROTOBUF: Final = hasattr(Decoder, "processProtoBuf")

TRADE_SIZES: Final = (TickTypeEnum.LAST_SIZE, TickTypeEnum.DELAYED_LAST_SIZE)
TRADE_TIMES: Final = (TickTypeEnum.LAST_TIMESTAMP, TickTypeEnum.DELAYED_LAST_TIMESTAMP)

# A longer one may be a way to say that the size is missing.
_MAX_SIZE_DIGITS: Final = 9

# Request id, tick type and, of a TICK_PRICE, its price (USD) and size (shares); of a trade's
# lone size its shares; of a trade's time its Unix seconds (int) in the price's place.
Tick: TypeAlias = tuple[int, int, float | None, int]
# None leaves the message to IBKR's decoder.
TickReader: TypeAlias = Callable[[bytes], Tick | None]


def tick_reader(server_version: int) -> TickReader:
    """What reads TICK_PRICE, TICK_SIZE, TICK_GENERIC and TICK_STRING of a server version.

    What a tick does not tell is checked all the same: a message that the decoder
    would refuse is left to it. What is missing in protobuf reads as 0, which is no
    request, no trade's tick type and no price.
    """
    if server_version >= PROTOBUF_TICKS_SERVER_VERSION and LIBRARY_KNOWS_PROTOBUF:
        return _protobuf_reader()
    return _read_raw_id_text if server_version >= RAW_ID_SERVER_VERSION else _read_text


def _read_text(message: bytes) -> Tick | None:
    try:
        # The fields: kind, version 6, and those of the kind, with a NUL after each.
        match message.split(b"\0"):
            case [b"1", b"6", req_id, tick_type, price, size, attributes, b""]:  # TICK_PRICE
                int(attributes)
                return int(req_id), int(tick_type), float(price), _whole(size.decode())
            case [b"2", b"6", req_id, tick_type, size, b""]:  # TICK_SIZE
                number, shares = int(tick_type), size.decode()
                if number in TRADE_SIZES:
                    return int(req_id), number, None, _whole(shares)
                if _is_number(shares):
                    return _sign_of_life(int(req_id), number)
            case [b"45", b"6", req_id, tick_type, value, b""]:  # TICK_GENERIC
                float(value)
                return _sign_of_life(int(req_id), int(tick_type))
            case [b"46", b"6", req_id, tick_type, value, b""]:  # TICK_STRING
                return _string(int(req_id), int(tick_type), value)
    except ValueError:
        pass
    return None


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
                return tick.reqId, tick.tickType, tick.price, _whole(tick.size)
            if kind == size_id:
                tick = parse_size(body)
                if tick.tickType in TRADE_SIZES:
                    return tick.reqId, tick.tickType, None, _whole(tick.size)
                if not _is_number(tick.size):
                    return None
                return _sign_of_life(tick.reqId, tick.tickType)
            if kind == string_id:
                tick = parse_string(body)
                return _string(tick.reqId, tick.tickType, tick.value)
            if kind != generic_id:
                return None
            tick = parse_generic(body)
        except (DecodeError, ValueError):
            return None
        return _sign_of_life(tick.reqId, tick.tickType)

    return read


def _sign_of_life(req_id: int, tick_type: int) -> Tick | None:
    # With this type the decoder does not call every callback.
    return (req_id, tick_type, None, 0) if tick_type != TickTypeEnum.NOT_SET else None


def _string(req_id: int, tick_type: int, value: bytes | str) -> Tick | None:
    if tick_type in TRADE_TIMES:
        return req_id, tick_type, int(value), 0
    return _sign_of_life(req_id, tick_type)


def _whole(size: str) -> int:
    if len(size) > _MAX_SIZE_DIGITS or not size.isdecimal():
        raise ValueError
    return int(size)


def _is_number(text: str) -> bool:
    return text.isdecimal() or text.replace(".", "", 1).isdecimal()
