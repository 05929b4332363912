"""Which of the symbols that news names are US stocks, by exchange and suffix. No I/O, no clock.

The same letters stand for different companies on different exchanges.
"""

import re
from collections.abc import Iterable, Iterator
from enum import Enum
from itertools import islice
from typing import Any, Final, NamedTuple

from newshead.core.tickers import parse_ticker
from newshead.text import plain_name

_US: Final = """
    NYSE NYSEAMERICAN NYSEARCA NYSEMKT NASDAQ NASDAQGS NASDAQGM NASDAQCM AMEX ARCA BATS CBOE IEX
    OTC OTCBB OTCQB OTCQX PINX PINK XNAS XNYS"""
_AMERICA: Final = (
    "TSX TSXV TSXVENTURE CVE CSE CNSX NEO XTSE XTSX XCNQ NEOE BMV XMEX BOVESPA B3 BVMF"
)
_EUROPE: Final = """
    LSE AIM LON XLON FRA FWB XFRA XETRA ETR XETR BER DUS HAM MUN STU TRADEGATE EURONEXT EPA XPAR
    AMS XAMS EBR XBRU ELI XLIS ISE XDUB BIT XMIL BME XMAD SIX SWX XSWX VIE XWBO WSE XWAR STO XSTO
    CPH XCSE HEL XHEL OSL XOSL OMX AQSE NGM ATHEX BIST MOEX MCX"""
_ELSEWHERE: Final = """
    ASX XASX NZX XNZE HKEX SEHK HKG XHKG SSE XSHG SZSE XSHE TSE TYO JPX XTKS KRX KOSPI KOSDAQ XKRX
    TWSE TPE XTAI TPEX SGX XSES NSE XNSE BSE XBOM IDX XIDX SET XBKK KLSE XKLS PSE TASE XTAE TADAWUL
    DFM ADX JSE XJSE"""
# X stands before pairs of currencies.
_NO_STOCKS: Final = "X CC CRYPTO FX FOREX COINBASE BINANCE"
# Behind a dot, as Yahoo and Reuters write them.
_COUNTRIES: Final = """
    TO V CN NE MX SA L IL DE F BE DU HM HA MU SG PA AS BR LS IR MI MC SW VX VI WA ST CO HE OL IC
    AT IS AX NZ HK SS SZ T KS KQ TW TWO SI NS BO JK BK KL TA SR JO ME"""

# As `plain_name` spells them.
US_EXCHANGES: Final = frozenset(_US.split())
FOREIGN_EXCHANGES: Final = frozenset(
    name for names in (_AMERICA, _EUROPE, _ELSEWHERE, _NO_STOCKS) for name in names.split()
)
COUNTRIES: Final = frozenset(_COUNTRIES.split())
# Classes, units, warrants, rights, preferreds, and shares that are traded when issued.
_US_SUFFIX: Final = re.compile(r"[A-Z]|UN|W[STID]|W[ST][A-Z]|RT|P[A-Z]|PR[A-Z]?|CL")
_SUFFIX: Final = re.compile(r"([./ -])([A-Z]+)$")
_PAIR: Final = re.compile(
    r"[A-Z0-9]{2,10}[/-](?:USD[TC]?|EUR|GBP|JPY|CHF|CAD|AUD|NZD|CNY|HKD|BTC|ETH)"
    r"|[A-Z]{3,5}USD[TC]?|\$[A-Z0-9]+"
)
# Numbers are symbols in Asia.
_FOREIGN_NUMBER: Final = re.compile(r"[0-9][A-Z0-9]*\.[A-Z]+")

MAX_SYMBOL: Final = 40
MAX_TEXT: Final = 200
# Of an article; far more than any names.
MAX_NAMES: Final = 1_000
# How deep lists of securities lie in one another.
MAX_DEPTH: Final = 3


class Listing(Enum):
    """Where a symbol is listed."""

    US = "in the US"
    FOREIGN = "elsewhere, or no stock"
    UNKNOWN = "on an unknown exchange"
    NOT_UNDERSTOOD = "not understood"


class Security(NamedTuple):
    """A security that news names."""

    symbol: str
    """Upper case, without its exchange; of one that is a ticker, that."""
    exchange: str
    """As it came; empty where none is named."""
    listing: Listing


def securities(content: dict[str, Any]) -> list[Security]:
    """Return what an article's content names, each symbol once."""
    fields = ("securities", "stocks", "tickers")
    pairs = (pair for name in fields for pair in named(content.get(name)))
    return chosen(islice(pairs, MAX_NAMES))


def chosen(pairs: Iterable[tuple[str, str]]) -> list[Security]:
    """Return the securities of symbols and exchanges, each symbol once: with a US exchange rather
    than another, and with any rather than none."""
    found: dict[str, Security] = {}
    for symbol, exchange in pairs:
        security = judged(symbol, exchange)
        if _rank(security) < _rank(found.get(security.symbol)):
            found[security.symbol] = security
    return list(found.values())


def _rank(security: Security | None) -> int:
    if security is None:
        return 3
    if not security.exchange:
        return 2
    return 0 if security.listing is Listing.US else 1


def judged(text: str, exchange: str = "") -> Security:
    """Return the security that a text names, which may have its exchange before a colon."""
    prefix, _, symbol = text[:MAX_TEXT].rpartition(":")
    exchange = (prefix or exchange).strip()[:MAX_SYMBOL]
    ticker = parse_ticker(symbol)
    symbol = symbol.strip().upper()[:MAX_SYMBOL]
    place = plain_name(exchange)
    if place in FOREIGN_EXCHANGES or _is_foreign(symbol):
        return Security(symbol, exchange, Listing.FOREIGN)
    if ticker is None:
        return Security(symbol, exchange, Listing.NOT_UNDERSTOOD)
    known = not place or place in US_EXCHANGES
    return Security(ticker, exchange, Listing.US if known else Listing.UNKNOWN)


def _is_foreign(symbol: str) -> bool:
    if _PAIR.fullmatch(symbol) or _FOREIGN_NUMBER.fullmatch(symbol):
        return True
    suffix = _SUFFIX.search(symbol)
    if suffix is None:
        return False
    mark, letters = suffix.groups()
    return (mark == "." and letters in COUNTRIES) or not _US_SUFFIX.fullmatch(letters)


def named(value: object, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Yield name and exchange of all that a field names, in any of the spellings that are seen."""
    match value:
        case str() if value.strip():
            yield value, ""
        case int() | float():
            yield str(value), ""
        case list() if depth < MAX_DEPTH:
            for each in value:
                yield from named(each, depth + 1)
        case {"item": item} if depth < MAX_DEPTH:
            yield from named(item, depth + 1)
        case dict() if value:
            spelled = [value.get(name) for name in ("symbol", "ticker", "name")]
            texts = [text.strip() for text in spelled if isinstance(text, str)]
            exchange = value.get("exchange")
            # One whose name is empty names nothing; one without a name is in a new spelling.
            if any(texts) or not texts:
                name = next((text for text in texts if text), "")
                yield name, exchange if isinstance(exchange, str) else ""
