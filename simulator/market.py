"""The trades a simulated gateway plays: scripted, read from a CSV file, or the built-in sample."""

import csv
import itertools
import math
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

CSV_HEADER: Final = ["seconds", "ticker", "price", "size"]
REPEAT_PAUSE_S: Final = 1.0
SAMPLE_LENGTH_S: Final = 300.0


class Trade(NamedTuple):
    """One trade of a market."""

    seconds: float
    """Since the market's opening, 0 or more."""
    ticker: str
    """As IBKR spells it (`BRK B`)."""
    price: float
    """USD."""
    size: float
    """Shares, may be fractional."""


class MarketError(ValueError):
    """A market that cannot be played; the text says what is wrong and where."""


class Market:
    """Trades in order of time, and the symbols a gateway knows.

    Parameters
    ----------
    trades
        In any order; trades of equal time keep theirs.
    symbols
        Symbols that are known besides those of the trades: they can be asked for, and do not trade.
    repeat
        Play it again for ever, each time one second after its last trade.

    Raises
    ------
    MarketError
        If a trade has a negative time, a price or size that is not a positive number, or a ticker
        that is not printable ASCII.
    """

    def __init__(
        self, trades: Iterable[Trade] = (), *, symbols: Iterable[str] = (), repeat: bool = False
    ) -> None:
        self.trades = sorted(trades, key=lambda trade: trade.seconds)
        for trade in self.trades:
            _check(trade)
        self.symbols = frozenset(trade.ticker for trade in self.trades) | frozenset(symbols)
        self.repeat = repeat

    @classmethod
    def from_csv(cls, path: Path, *, repeat: bool = False) -> "Market":
        """Read a market from a CSV file with the header `seconds,ticker,price,size`.

        Raises
        ------
        MarketError
            If the file cannot be read, or a line of it is wrong: the text names file and line.
        """
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                return cls(_read(file, path), repeat=repeat)
        except OSError as error:
            raise MarketError(f"{path} cannot be read: {error.strerror}.") from error
        except UnicodeDecodeError as error:
            raise MarketError(f"{path} is not a text file in UTF-8.") from error

    @classmethod
    def sample(cls) -> "Market":
        """Make the built-in market: twelve stocks around steady prices, but one that climbs; the
        same at every call."""
        return cls(_walks(), repeat=True)

    def play(self) -> Iterator[Trade]:
        """Yield the trades, each with its time since the opening, for ever if it repeats."""
        yield from self.trades
        if not self.repeat or not self.trades:
            return
        period = self.trades[-1].seconds + REPEAT_PAUSE_S
        for round_ in itertools.count(1):
            for trade in self.trades:
                yield trade._replace(seconds=trade.seconds + round_ * period)


def _check(trade: Trade) -> None:
    if not (math.isfinite(trade.seconds) and trade.seconds >= 0):
        raise MarketError(f"seconds must be 0 or more, not {trade.seconds!r}.")
    if not (trade.ticker and trade.ticker.isascii() and trade.ticker.isprintable()):
        raise MarketError(f"ticker must be printable ASCII, not {trade.ticker!r}.")
    if not (math.isfinite(trade.price) and trade.price > 0):
        raise MarketError(f"price must be a positive number, not {trade.price!r}.")
    if not (math.isfinite(trade.size) and trade.size > 0):
        raise MarketError(f"size must be a positive number, not {trade.size!r}.")


def _read(lines: Iterable[str], path: Path) -> Iterator[Trade]:
    rows = csv.reader(lines)
    try:
        if [name.strip() for name in next(rows, [])] != CSV_HEADER:
            raise MarketError(f"the header must be {','.join(CSV_HEADER)}.")
        for row in rows:
            if row:
                trade = _trade(row)
                _check(trade)
                yield trade
    except (MarketError, csv.Error) as error:
        raise MarketError(f"{path}, line {max(rows.line_num, 1)}: {error}") from error


def _trade(row: list[str]) -> Trade:
    try:
        seconds, ticker, price, size = row
        return Trade(float(seconds), ticker.strip(), float(price), float(size))
    except ValueError as error:
        raise MarketError(f"not seconds,ticker,price,size but {','.join(row)!r}.") from error


class _Walk(NamedTuple):
    ticker: str
    price: float
    trades_per_second: float
    climb_pct_a_minute: float = 0.0


_SAMPLE: Final = [
    _Walk("AAPL", 271.50, 4.0),
    _Walk("MSFT", 478.20, 2.0),
    _Walk("NVDA", 178.90, 3.0),
    _Walk("TSLA", 391.10, 2.0),
    _Walk("BRK B", 503.40, 0.5),
    _Walk("SOUN", 11.20, 0.6),
    _Walk("PLUG", 1.96, 0.6),
    _Walk("GEVO", 2.12, 0.4),
    _Walk("SENS", 0.4135, 0.4),
    _Walk("CTXR", 1.08, 0.3),
    # It climbs, so that a window of it alerts if it is rated BUY.
    _Walk("OCGN", 1.31, 3.0, 30.0),
    _Walk("BNGO", 1.72, 0.2),
]


def _walks() -> Iterator[Trade]:
    """Random walks that are drawn back to where they began, so that a repeat makes no jump but of
    the one that climbs."""
    for walk in _SAMPLE:
        dice = random.Random(walk.ticker)
        decimals = 2 if walk.price >= 1 else 4
        step = max(0.0008 * walk.price, 10**-decimals)
        price = walk.price
        seconds = dice.expovariate(walk.trades_per_second)
        while seconds < SAMPLE_LENGTH_S:
            size = dice.choice([1, 5, 10, 25, 50, 100, 100, 100, 200, 300, 500, 0.5])
            yield Trade(round(seconds, 3), walk.ticker, round(price, decimals), size)
            # About half of all trades repeat the last price.
            if dice.random() < 0.6:
                drawn_to = walk.price * (1 + walk.climb_pct_a_minute / 100) ** (seconds / 60)
                price += 0.05 * (drawn_to - price) + dice.gauss(0, step)
            seconds += dice.expovariate(walk.trades_per_second)
