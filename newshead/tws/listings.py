"""Which of a ticker's listings is the US one, and what becomes of the ticker if none is."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from ibapi.contract import Contract

US_EXCHANGES: Final = frozenset(
    {"NYSE", "NASDAQ", "ARCA", "AMEX", "BATS", "IEX", "PINK", "ISLAND", "OTCBB"}
)
# Where stocks are listed in USD too, as IBKR names the exchanges of other countries.
FOREIGN_EXCHANGES: Final = frozenset(
    {
        *("AEB", "AQEDE", "AQEUK", "AQEIT", "ASX", "ATHEX", "BATEEN", "BATEUK", "BEX", "BM"),
        *("BOVESPA", "BUX", "BVME", "BVME.ETF", "CDED", "CHINEXT", "CHIXEN", "CHIXJ", "CHIXUK"),
        *("CPH", "EBS", "EUIBSI", "FWB", "FWB2", "GETTEX", "GETTEX2", "HEX", "HKFE", "IBIS"),
        *("IBIS2", "ISED", "KSE", "LSE", "LSEETF", "LSEIOB1", "MEXI", "MOEX", "N.RIGA", "NSE"),
        *("OMEGA", "OMXNO", "OSE", "OSL", "PRA", "PSE", "PURE", "SBF", "SEHK", "SEHKNTL"),
        *("SEHKSTAR", "SEHKSZSE", "SFB", "SGX", "SMART.EU", "SWB", "SWB2", "SZSE", "TADAWUL"),
        *("TASE", "TGATE", "TPEX", "TRQXCH", "TRQXDE", "TRQXEN", "TRQXUK", "TSE", "TSEJ", "TWSE"),
        *("VALUE", "VENTURE", "VIRTX", "VSE", "WSE", "XETRA"),
    }
)


class Standing(Enum):
    """What a ticker's listings say about it."""

    NONE = "it has none"
    US = "one is on a US exchange"
    UNKNOWN_EXCHANGE = "none is known to be a US one, and one may be"
    FOREIGN = "all are on exchanges of other countries"


class Refusal(Enum):
    """Why a ticker was dropped."""

    REFUSED = "TWS refuses it"
    UNKNOWN = "IBKR knows no such US stock"
    FOREIGN = "it is listed abroad only"


class Finding(Enum):
    """What is told of a ticker, mostly of its listing, short of its being dropped."""

    CHOSEN = "the US listing was chosen"
    UNKNOWN_EXCHANGE = "its only listing is on an exchange that newshead does not know"
    NOT_TRUSTED = "IBKR knows no such stock, as long as its definitions are not complete"
    UNANSWERED = "IBKR does not answer which listings it has"
    DISPLACED = "its market data line went to a newer headline"


@dataclass
class Lookup:
    """A request for the listings of a ticker, and what has come so far."""

    ticker: str
    # Monotonic seconds.
    asked_at: float
    # Whether the ticker gets no data before one is chosen.
    needed: bool
    found: list[Contract] = field(default_factory=list)

    def choose(self) -> tuple[Contract | None, Standing]:
        """Return the listing to ask for and what it is: a US one before an unknown one."""
        foreign: Contract | None = None
        unknown: Contract | None = None
        for listing in self.found:
            if listing.primaryExchange in US_EXCHANGES:
                return listing, Standing.US
            if listing.primaryExchange in FOREIGN_EXCHANGES:
                foreign = foreign or listing
            else:
                unknown = unknown or listing
        if unknown is not None:
            return unknown, Standing.UNKNOWN_EXCHANGE
        return foreign, Standing.FOREIGN if foreign is not None else Standing.NONE
