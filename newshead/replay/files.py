"""Trades and news from CSV files, line by line."""

import csv
import math
from collections.abc import Callable, Iterator, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from newshead.core.tickers import parse_ticker
from newshead.replay.variants import RATINGS

TRADES_HEADER: Final = ("seconds", "ticker", "price", "size")
NEWS_HEADER: Final = ("seconds", "ticker", "recommendation", "confidence")
# 30 years; beyond, it is no time since the day's begin.
MAX_SECONDS: Final = 1e9
MAX_NUMBER: Final = 1e15
# Characters of a wrong line that its refusal quotes.
MAX_QUOTED: Final = 60
# How many lines are read between two calls that tell how far it is.
TELL_EVERY_LINES: Final = 100_000

T = TypeVar("T")
# Is told the share of the file that has been read, 0 to 1.
Tell = Callable[[float], object]


class InputError(Exception):
    """A file cannot be used; the text says which, the line, and what is wrong."""


class Trade(NamedTuple):
    """A trade: seconds since the begin, ticker as the file has it, USD, shares."""

    seconds: float
    ticker: str
    price: float
    size: float


class NewsLine(NamedTuple):
    """A rated headline; seconds since the begin."""

    seconds: float
    ticker: str
    recommendation: str


def trades(path: Path, tell: Tell) -> Iterator[Trade]:
    """Yield a file's trades, in its order.

    Raises
    ------
    InputError
        The file or a line of it cannot be used.
    """
    return _read(path, TRADES_HEADER, _trade, tell)


def news(path: Path, tell: Tell) -> Iterator[NewsLine]:
    """Yield a file's news, in its order; raises as `trades`."""
    return _read(path, NEWS_HEADER, _news_line, tell)


def _read(path: Path, header: Sequence[str], convert: Callable[..., T], tell: Tell) -> Iterator[T]:
    number = 0
    try:
        size = max(1, path.stat().st_size)
        # What is no UTF-8 is no number and no ticker either, and is refused with its line.
        with (
            path.open("rb") as file,
            TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="") as text,
        ):
            rows = csv.reader(text, strict=True)
            found = next(rows, [])
            number = 1
            if [name.strip() for name in found] != list(header):
                raise ValueError(
                    f"the header must be {','.join(header)}, not {_quoted(','.join(found))}"
                )
            for row in rows:
                if not row:
                    continue
                number = rows.line_num
                if len(row) != len(header):
                    raise ValueError(f"not {','.join(header)} but {_quoted(','.join(row))}")
                yield convert(*row)
                # A pipe does not say how far it is.
                if number % TELL_EVERY_LINES == 0 and file.seekable():
                    tell(file.tell() / size)
    except OSError as problem:
        raise InputError(f"{path} cannot be read: {problem.strerror}.") from problem
    except csv.Error as problem:
        raise InputError(f"{path}, line {number + 1}: {problem}.") from problem
    except ValueError as problem:
        raise InputError(f"{path}, line {number}: {problem}.") from problem


def _trade(seconds: str, ticker: str, price: str, size: str) -> Trade:
    if not (ticker.strip() and ticker.isascii() and ticker.isprintable()):
        raise ValueError(f"ticker must be printable ASCII, not {_quoted(ticker)}")
    return Trade(_seconds(seconds), ticker, _positive("price", price), _positive("size", size))


def _news_line(seconds: str, ticker: str, recommendation: str, _confidence: str) -> NewsLine:
    known = parse_ticker(ticker)
    if known is None:
        raise ValueError(f"ticker must be one such as ABCD or BRK.B, not {_quoted(ticker)}")
    if recommendation not in RATINGS:
        raise ValueError(
            f"recommendation must be {', '.join(RATINGS)}, not {_quoted(recommendation)}"
        )
    return NewsLine(_seconds(seconds), known, recommendation)


def _quoted(text: str) -> str:
    return repr(text if len(text) <= MAX_QUOTED else f"{text[:MAX_QUOTED]}...")


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= MAX_SECONDS:
        raise ValueError(
            f"seconds must be a number from 0 to {MAX_SECONDS:.0f}, not {_quoted(text)}"
        )
    return value


def _positive(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= MAX_NUMBER:
        raise ValueError(f"{name} must be a positive number, not {_quoted(text)}")
    return value
