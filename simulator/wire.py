"""The TWS socket protocol below its messages: frames, server versions, text and protobuf forms."""

import functools
import importlib
import struct
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final

from ibapi import server_versions
from ibapi.message import IN

MIN_SERVER_VERSION: Final = 176
MAX_SERVER_VERSION: Final = 226

HELLO: Final = b"API\0"
PROTOBUF_MESSAGE_OFFSET: Final = 200
"""Added to a message's id when its body is protobuf."""
RAW_MESSAGE_ID_SINCE: Final = 201
"""From this server version on a message begins with its id as 4 bytes, not as a text field."""
ERROR_TIME_SINCE: Final = 194
LAST_TRADE_DATE_SINCE: Final = 182
INELIGIBILITY_REASONS_SINCE: Final = 186
HISTORY_ENDS_APART_SINCE: Final = 196
"""From this server version on a message of its own tells the end of past bars."""
HISTORICAL_DATA_END: Final = 108
"""Its id, which older releases of ibapi do not have."""
VOLUME_IN_SHARES_SINCE: Final = 220

MAX_REQUEST_BYTES: Final = 1_000_000

# IBKR publishes only which requests the client writes as protobuf from which version on. The
# answers follow their requests; error messages and open orders came with placing orders (203).
PROTOBUF_SINCE: Final[dict[int, int]] = {
    IN.EXECUTION_DATA_END: 201,
    IN.ERR_MSG: 203,
    IN.OPEN_ORDER: 203,
    IN.OPEN_ORDER_END: 203,
    IN.COMPLETED_ORDERS_END: 204,
    IN.CONTRACT_DATA: 205,
    IN.CONTRACT_DATA_END: 205,
    IN.TICK_PRICE: 206,
    IN.TICK_SIZE: 206,
    IN.TICK_GENERIC: 206,
    IN.TICK_STRING: 206,
    IN.TICK_SNAPSHOT_END: 206,
    IN.TICK_REQ_PARAMS: 206,
    IN.MARKET_DATA_TYPE: 206,
    IN.MANAGED_ACCTS: 207,
    IN.ACCT_DOWNLOAD_END: 207,
    IN.POSITION_END: 207,
    IN.ACCOUNT_SUMMARY_END: 207,
    IN.POSITION_MULTI_END: 207,
    IN.ACCOUNT_UPDATE_MULTI_END: 207,
    IN.HISTORICAL_DATA: 208,
    HISTORICAL_DATA_END: 208,
    IN.NEXT_VALID_ID: 213,
    IN.CURRENT_TIME: 213,
}
"""The server version from which on a message to the client is protobuf."""


class WireError(ValueError):
    """What a client sent is not the TWS protocol."""


def frame(payload: bytes) -> bytes:
    """Put a message's length before it."""
    return struct.pack("!I", len(payload)) + payload


def glue(*messages: bytes) -> bytes:
    """Put framed messages into one frame, one behind the other."""
    return frame(b"".join(message[4:] for message in messages))


def take_frames(received: bytearray) -> Iterator[bytes]:
    """Take the complete messages off the front of what was received.

    Raises
    ------
    WireError
        If a message says that it is longer than any request.
    """
    while len(received) >= 4:
        (length,) = struct.unpack_from("!I", received)
        if length > MAX_REQUEST_BYTES:
            raise WireError(f"a message of {length} bytes")
        if len(received) < 4 + length:
            return
        payload = bytes(received[4 : 4 + length])
        del received[: 4 + length]
        yield payload


def negotiate(hello: bytes, server_version: int) -> int:
    """Return the version that both sides speak, from a client's `v100..226`.

    Raises
    ------
    WireError
        If that is no range of versions, or the client is too old or too new for this gateway.
    """
    try:
        # What follows a space are options of the client's.
        low, high = (int(number) for number in hello[1:].split(b" ")[0].split(b".."))
    except ValueError as error:
        raise WireError(f"no version range but {hello!r}") from error
    # The protobuf classes are those of the ibapi that is installed here.
    version: int = min(server_version, high, server_versions.MAX_CLIENT_VER)
    if version < max(low, MIN_SERVER_VERSION):
        raise WireError(f"versions {low} to {high}, and not {server_version}")
    return version


@functools.cache
def protobuf_class(name: str) -> Any:
    """Return one of IBKR's protobuf classes; older releases of ibapi have none."""
    return getattr(importlib.import_module(f"ibapi.protobuf.{name}_pb2"), name)


def text_fields(fields: tuple[object, ...]) -> bytes:
    """Spell fields as TWS does: ASCII with escapes, each ended by a NUL."""
    return "".join(f"{field}\0" for field in fields).encode("ascii", "backslashreplace")


def spell(number: float) -> str:
    """Spell a number as decimal text, without a fraction where it has none."""
    return str(int(number)) if number == int(number) else f"{Decimal(repr(number)):f}"


def lengthen(spelled: str, more: int) -> str:
    """Spell the same number with so many more characters."""
    if more == 0:
        return spelled
    return spelled + "0" * more if "." in spelled else spelled + "." + "0" * (more - 1)
