"""The stocks of a market as IBKR describes them, and the search for the one a client means."""

import zlib
from collections.abc import Collection, Iterable, Mapping
from typing import Final, NamedTuple

NO_DEFINITION: Final = "No security definition has been found for the request"


class Stock(NamedTuple):
    """One listing of a stock."""

    symbol: str
    con_id: int
    primary_exchange: str
    long_name: str


class ContractQuery(NamedTuple):
    """The fields of a client's contract by which a stock is found; empty where it said nothing."""

    con_id: int = 0
    symbol: str = ""
    sec_type: str = ""
    exchange: str = ""
    primary_exchange: str = ""
    currency: str = ""


_WELL_KNOWN: Final = [
    Stock("AAPL", 265598, "NASDAQ", "APPLE INC"),
    Stock("MSFT", 272093, "NASDAQ", "MICROSOFT CORP"),
    Stock("NVDA", 4815747, "NASDAQ", "NVIDIA CORP"),
    Stock("TSLA", 76792991, "NASDAQ", "TESLA INC"),
    Stock("BRK B", 72063691, "NYSE", "BERKSHIRE HATHAWAY INC-CL B"),
]


def describe(symbol: str) -> Stock:
    """Return the US listing of a symbol, the same at every call."""
    for stock in _WELL_KNOWN:
        if stock.symbol == symbol:
            return stock
    return Stock(symbol, _con_id(symbol), "NASDAQ", f"{symbol} INC")


def find(
    query: ContractQuery,
    symbols: Iterable[str],
    ambiguous: Collection[str],
    abroad: Mapping[str, str],
) -> list[Stock]:
    """Return the listings that a client's contract fits: several for an ambiguous symbol.

    An ambiguous symbol becomes one listing when the client gives a primary exchange or a con id.
    A symbol of `abroad` is listed on that exchange only.
    """
    if query.sec_type not in ("STK", "") or query.currency not in ("USD", ""):
        return []
    listings = [
        listing
        for symbol in ([query.symbol] if query.symbol else symbols)
        if symbol in symbols
        for listing in _listings(symbol, symbol in ambiguous, abroad.get(symbol, ""))
    ]
    if query.con_id:
        return [listing for listing in listings if listing.con_id == query.con_id]
    if not query.symbol:
        return []
    return listings[:1] if query.primary_exchange else listings


def _listings(symbol: str, ambiguous: bool, abroad: str) -> list[Stock]:
    us = describe(symbol)
    if abroad:
        return [us._replace(con_id=_con_id(f"{symbol}@{abroad}"), primary_exchange=abroad)]
    if not ambiguous:
        return [us]
    return [us, us._replace(con_id=_con_id(f"{symbol}@EBS"), primary_exchange="EBS")]


def _con_id(name: str) -> int:
    return 100_000_000 + zlib.crc32(name.encode()) % 700_000_000
