"""What TWS's message codes mean, and what newshead does about each.

Sources: IBKR's list of TWS API message codes, and what gateways were seen to send.
"""

import logging
import math
from enum import Enum
from typing import Final, NamedTuple


class Reaction(Enum):
    """What a code makes the client do, besides the line in the log."""

    NONE = "nothing"
    NO_DATA = "the ticker gets no data; asking again is no use"
    DROP_TICKER = "drop the ticker for this run"
    FIND_LISTING = "ask which of the listings is the US one"
    PARK_TICKER = "give the subscription up and ask again later"
    NEW_REQUEST_ID = "ask again with another request id"
    SLOW_DOWN = "send fewer messages a second"
    MARK_STALE = "no data flows, TWS restores it itself"
    RESUBSCRIBE_ALL = "data flows again, all subscriptions are lost"
    RESUBSCRIBE_SILENT = "data flows again, ask again for what stays silent"
    END_CONNECTION = "end the connection, try again later"
    STOP = "end the connection for good"


class Code(NamedTuple):
    """What a code means: the reaction, the log level, and the line for the trader.

    The line may hold {ticker}, {host}, {port}, {client_id} and {text}, TWS's own
    words. The same line is not told again within `again_s` seconds.
    """

    reaction: Reaction
    level: int
    line: str
    again_s: float = 0.0


_FARM_NOTICE: Final = Code(Reaction.NONE, logging.DEBUG, "{text}")
_NO_DATA: Final = Code(
    Reaction.NO_DATA,
    logging.ERROR,
    "No data for {ticker}: the account has no live market data subscription for it; buy it in "
    "IBKR's Client Portal (Settings > Market Data Subscriptions), or set IBKR_MARKET_DATA_TYPE=3 "
    "for data 15 minutes late. ({text})",
    again_s=math.inf,
)
_PART_MISSING: Final = Code(
    Reaction.NONE,
    logging.WARNING,
    "A part of the data of {ticker} is not subscribed; the rest flows. ({text})",
    again_s=math.inf,
)
_SERVER_ERROR: Final = Code(
    Reaction.PARK_TICKER, logging.WARNING, "TWS failed over {ticker}; it is asked again. ({text})"
)
_TWS_OFFLINE: Final = Code(
    Reaction.MARK_STALE,
    logging.WARNING,
    "TWS lost its connection to IBKR: no data until it is back; TWS restores it itself. ({text})",
    again_s=60.0,
)
_NOT_CONNECTED: Final = Code(
    Reaction.END_CONNECTION,
    logging.ERROR,
    "Not connected to TWS at {host}:{port}: start TWS or IB Gateway, enable its API "
    "(Configure > API > Settings > Enable ActiveX and Socket Clients) and compare its machine and "
    "socket port with IBKR_HOST and IBKR_PORT.",
)
_BROKEN_STREAM: Final = Code(
    Reaction.END_CONNECTION, logging.ERROR, "TWS sent what cannot be read: {text}"
)

CODES: Final[dict[int, Code]] = {
    100: Code(
        Reaction.SLOW_DOWN,
        logging.ERROR,
        "TWS got over 50 messages a second, from newshead and all its other clients; newshead "
        "slows down. ({text})",
        again_s=60.0,
    ),
    101: Code(
        Reaction.PARK_TICKER,
        logging.WARNING,
        "No market data line is free for {ticker}: it is asked for again later. Close "
        "subscriptions elsewhere, or get more lines from IBKR (quote boosters). ({text})",
        again_s=math.inf,
    ),
    102: Code(Reaction.NEW_REQUEST_ID, logging.WARNING, "{ticker} is asked for again. ({text})"),
    200: Code(
        Reaction.DROP_TICKER,
        logging.ERROR,
        "IBKR knows no US stock {ticker}; it is left out for this run. ({text})",
    ),
    300: Code(Reaction.NONE, logging.DEBUG, "{text}"),
    320: _SERVER_ERROR,
    321: Code(
        Reaction.DROP_TICKER,
        logging.ERROR,
        "IBKR refuses {ticker}; it is left out for this run. ({text})",
    ),
    322: _SERVER_ERROR,
    326: Code(
        Reaction.END_CONNECTION,
        logging.ERROR,
        "Client id {client_id} is in use at {host}:{port}: after a lost connection TWS usually "
        "holds it for up to two minutes. Otherwise stop the other program that holds it, or set "
        "IBKR_CLIENT_ID to a free one (tradehead holds 1).",
    ),
    354: _NO_DATA,
    502: _NOT_CONNECTED,
    503: Code(
        Reaction.STOP,
        logging.ERROR,
        "This TWS is too old for newshead: update it, then start newshead again. ({text})",
    ),
    504: _NOT_CONNECTED,
    505: _BROKEN_STREAM,
    507: _BROKEN_STREAM,
    1100: _TWS_OFFLINE,
    1101: Code(
        Reaction.RESUBSCRIBE_ALL,
        logging.WARNING,
        "TWS is connected to IBKR again, its subscriptions are lost: all are asked for again.",
    ),
    1102: Code(
        Reaction.RESUBSCRIBE_SILENT,
        logging.WARNING,
        "TWS is connected to IBKR again, with its subscriptions.",
    ),
    1300: Code(
        Reaction.STOP,
        logging.ERROR,
        "TWS's socket port was changed: set IBKR_PORT to the new one. ({text})",
    ),
    2103: Code(
        Reaction.MARK_STALE,
        logging.WARNING,
        "IBKR's market data farm is broken: no data until it is back. ({text})",
        again_s=60.0,
    ),
    2104: Code(Reaction.RESUBSCRIBE_SILENT, logging.DEBUG, "{text}"),
    2110: _TWS_OFFLINE,
    10089: _NO_DATA,
    10090: _PART_MISSING,
    10091: _PART_MISSING,
    10167: Code(
        Reaction.NONE,
        logging.WARNING,
        "IBKR serves {ticker} 15 minutes late: the account has no live subscription for it. "
        "({text})",
        again_s=math.inf,
    ),
    10168: _NO_DATA,
    10186: _NO_DATA,
    10197: Code(
        Reaction.PARK_TICKER,
        logging.ERROR,
        "No data while the same user is logged in elsewhere with live data: log out there. "
        "({text})",
        again_s=900.0,
    ),
}

AMBIGUOUS: Final = Code(
    Reaction.FIND_LISTING,
    logging.INFO,
    "More than one stock is called {ticker}: asking IBKR for the US listing. ({text})",
)
NO_US_LISTING: Final = "None of the listings of {ticker} is a US one; it is left out for this run."
OTHER_CODE: Final = Code(Reaction.NONE, logging.WARNING, "{ticker}: {text}")


def meaning(number: int, text: str) -> Code:
    """Return what a code, with TWS's words for it, means."""
    if number == 200 and "ambiguous" in text.lower():
        return AMBIGUOUS
    if number not in CODES and 2100 <= number < 2200:
        return _FARM_NOTICE
    return CODES.get(number, OTHER_CODE)
