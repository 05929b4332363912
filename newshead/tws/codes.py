"""What TWS's message codes mean, and what newshead does about each.

Sources: IBKR's list of TWS API message codes, and what gateways were seen to send.
"""

import logging
import math
from enum import Enum
from typing import Final, NamedTuple

from newshead.tws.farms import carries_us_stocks, farm_name
from newshead.tws.listings import Finding, Refusal


class Reaction(Enum):
    """What a code makes the client do, besides the line in the log."""

    NONE = "nothing"
    NO_DATA = "the ticker gets no data; asking again is no use"
    DROP_TICKER = "drop the ticker for this run"
    FIND_LISTING = "ask which listings there are, and which is the US one"
    PARK_TICKER = "give the subscription up and ask again later"
    NO_LINE = "give the newest headline the line of a stock that nobody trades"
    NEW_REQUEST_ID = "ask again with another request id"
    SLOW_DOWN = "send fewer messages a second"
    MARK_STALE = "no data flows, TWS restores it itself"
    FARM_AWAY = "a farm's data is away until its own return"
    DEFINITIONS_BACK = "ask again for what IBKR did not know"
    FARM_BACK = "a farm's data is back, ask again for what stays silent"
    RESUBSCRIBE_ALL = "data flows again, all subscriptions are lost"
    RESUBSCRIBE_SILENT = "data flows again, ask again for what stays silent"
    END_CONNECTION = "end the connection, try again later"
    STOP = "end the connection for good"


class Code(NamedTuple):
    """What a code means: the reaction, the log level, and the line for the trader.

    The line may hold {ticker}, {host}, {port}, {client_id} and {text}: TWS's own
    words, or the name of an exchange. The same line is not told again within `again_s` seconds.
    """

    reaction: Reaction
    level: int
    line: str
    again_s: float = 0.0


_LEFT_OUT: Final = "it is left out until the session's roll or a new connection."
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
# Whatever a code says of a request for past bars, they do not come: FOLLOW_UP goes without.
NO_BARS: Final = Code(Reaction.NONE, logging.INFO, "IBKR gives no past bars of {ticker}. ({text})")
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
        Reaction.NO_LINE,
        logging.WARNING,
        "No market data line is free for {ticker}: it takes that of an older headline without a "
        "trade, or waits until one is free. Close "
        "subscriptions elsewhere, or get more lines from IBKR (quote boosters). ({text})",
        again_s=math.inf,
    ),
    102: Code(Reaction.NEW_REQUEST_ID, logging.WARNING, "{ticker} is asked for again. ({text})"),
    162: NO_BARS,
    # What it means only the listings say: TWS words it in the user's language.
    200: Code(
        Reaction.FIND_LISTING,
        logging.INFO,
        "IBKR finds no single US stock {ticker}: asking for its listings. ({text})",
    ),
    300: Code(Reaction.NONE, logging.DEBUG, "{text}"),
    320: _SERVER_ERROR,
    321: Code(
        Reaction.DROP_TICKER,
        logging.ERROR,
        f"IBKR refuses {{ticker}}; {_LEFT_OUT} ({{text}})",
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
    366: NO_BARS,
    420: NO_BARS,
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
        "TWS is connected to IBKR again, with its subscriptions. ({text})",
    ),
    1300: Code(
        Reaction.STOP,
        logging.ERROR,
        "TWS's socket port was changed: set IBKR_PORT to the new one. ({text})",
    ),
    2103: Code(
        Reaction.FARM_AWAY,
        logging.WARNING,
        "IBKR's market data farm is broken: no data until it is back. ({text})",
        again_s=60.0,
    ),
    2104: Code(Reaction.FARM_BACK, logging.DEBUG, "{text}"),
    # An idle farm is a sound one: it wakes up when it is asked.
    2108: Code(Reaction.FARM_BACK, logging.DEBUG, "{text}"),
    2110: _TWS_OFFLINE,
    2157: Code(
        Reaction.NONE,
        logging.WARNING,
        "IBKR's definitions of stocks are away: what is unknown or ambiguous is asked for again. "
        "({text})",
        again_s=60.0,
    ),
    2158: Code(Reaction.DEFINITIONS_BACK, logging.DEBUG, "{text}"),
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

# What became of a ticker once its listings, or a 200 instead of them, had come.
REFUSALS: Final[dict[Refusal, Code]] = {
    Refusal.UNKNOWN: Code(
        Reaction.NONE, logging.ERROR, "IBKR knows no US stock {ticker}; " + _LEFT_OUT
    ),
    Refusal.FOREIGN: Code(
        Reaction.NONE,
        logging.ERROR,
        "None of the listings of {ticker} is a US one ({text}); " + _LEFT_OUT,
    ),
}
FINDINGS: Final[dict[Finding, Code]] = {
    Finding.CHOSEN: Code(
        Reaction.NONE, logging.INFO, "{ticker} is ambiguous: using the {text} listing."
    ),
    Finding.UNKNOWN_EXCHANGE: Code(
        Reaction.NONE,
        logging.WARNING,
        "{ticker} is listed on {text}, which newshead does not know: using that listing. Check "
        "that it is the stock in the news.",
        again_s=math.inf,
    ),
    Finding.NOT_TRUSTED: Code(
        Reaction.NONE,
        logging.WARNING,
        "IBKR knows no US stock {ticker}, but that may change: the connection is new, or data is "
        "away. Asking again.",
        again_s=math.inf,
    ),
    Finding.UNANSWERED: Code(
        Reaction.NONE,
        logging.WARNING,
        "IBKR does not say which listings {ticker} has: asking again.",
        again_s=math.inf,
    ),
    Finding.DISPLACED: Code(
        Reaction.NONE,
        logging.WARNING,
        "{ticker}, which has waited longest for its first trade, gave its market data line to "
        "{text}; it is back when a line is free.",
    ),
}
# What a code about a ticker means when it comes without a request.
READ_ONLY: Final = Code(
    Reaction.NONE, logging.INFO, "TWS's API is read-only: newshead places no orders. ({text})"
)
REFUSED_BY_ITSELF: Final = Code(
    Reaction.NONE, logging.WARNING, "TWS refuses something that is about no ticker. ({text})"
)
OF_NO_REQUEST: Final = Code(Reaction.NONE, logging.WARNING, "IBKR: {text}")
OTHER_FARM: Final = Code(
    Reaction.NONE, logging.DEBUG, "A farm without data of US stocks is broken. ({text})"
)
OTHER_CODE: Final = Code(Reaction.NONE, logging.WARNING, "{ticker}: {text}")


def is_notice(number: int) -> bool:
    """Return whether a code only tells something, whatever it is about: it ends no request."""
    return 2100 <= number < 2200


def meaning(number: int, text: str, *, of_request: bool = True) -> Code:
    """Return what a code, with TWS's words for it, means; whether it is about a request or not."""
    if number == 2103 and not carries_us_stocks(farm_name(text)):
        return OTHER_FARM
    if number not in CODES and is_notice(number):
        return _FARM_NOTICE
    if of_request:
        return CODES.get(number, OTHER_CODE)
    code = CODES.get(number, OF_NO_REQUEST)
    if "{ticker}" in code.line:
        return READ_ONLY if "read-only" in text.lower() else REFUSED_BY_ITSELF
    return code
