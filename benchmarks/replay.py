"""The replay: a year of stored rows in a grid of four, and a usual day of trades from a file.

The reference is a bare loop over the same rows in memory: the live rule written down in it, with
nothing around it.
"""

import contextlib
import gc
import os
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.figures import Figure, Target
from newshead.core.rule import Rule
from newshead.replay.__main__ import main
from newshead.replay.judging import judge
from newshead.replay.sessions import sessions, split
from newshead.settings import Settings

ROWS: Final = 400_000
QUICK_ROWS: Final = 20_000
ROWS_A_WINDOW: Final = 25
WINDOWS_A_DAY: Final = 100
GRID: Final = tuple(Rule(change_pct=change_pct) for change_pct in (3.0, 4.0, 5.0, 6.0))
FIRST_SECOND: Final = 1_735_830_000
DAY_S: Final = 86_400
ROUNDS: Final = 5
# Of the file with a day: each of its tickers trades so often a second, for half an hour.
TICKERS: Final = 400
TRADES_A_SECOND: Final = 1.0
FILE_S: Final = 1800

StoredRow = tuple[str, int, float, int, str]


def measure(quick: bool) -> list[Figure]:
    """A year in a grid beside a bare loop, and a day from a file."""
    rows = _year(QUICK_ROWS if quick else ROWS)
    graded: list[float] = []
    bare: list[float] = []
    # As in the command's process.
    gc.disable()
    for _ in range(1 if quick else ROUNDS):
        bare.append(_took_s(lambda: _bare(rows)))
        graded.append(_took_s(lambda: _grid(rows)))
    return [
        Figure(
            f"replay of {len(rows):,} stored rows, grid of 4",
            median(graded),
            "s",
            "a bare loop",
            median(bare),
            Target(10, of_ratio=True),
        ),
        Figure(
            f"replay of a day from a file, {WINDOWS_A_DAY} windows",
            _day_s(60 if quick else FILE_S),
            "s",
            target=Target(10),
        ),
    ]


def _year(count: int) -> list[StoredRow]:
    """Windows of a random walk, a hundred a day, as the database gives them."""
    dice = random.Random(1)
    rows: list[StoredRow] = []
    for number in range(count // ROWS_A_WINDOW):
        day, of_day = divmod(number, WINDOWS_A_DAY)
        second = FIRST_SECOND + day * DAY_S + 150 * of_day
        price = dice.uniform(0.5, 12)
        for step in range(ROWS_A_WINDOW):
            price = max(0.1, round(price * (1 + dice.gauss(0, 0.004)), 4))
            rows.append((f"T{of_day:03}", second + 2 * step, price, 100, "BUY"))
    rows.sort()
    return rows


def _grid(rows: Sequence[StoredRow]) -> None:
    alerts = [0] * len(GRID)
    for session in sessions(split(rows, {}), Settings().session_roll):
        for number, result in enumerate(judge(session, GRID)):
            alerts[number] += len(result.alerts)
    if not alerts[0] > alerts[-1]:
        raise RuntimeError("The replay did not find what it is measured for.")


def _bare(rows: Sequence[StoredRow]) -> int:
    alerts, number, baseline, first, of = 0, 0, 0.0, 0, ""
    for ticker, second, price, _, rating in rows:
        if ticker != of or second - first > 60:
            of, first, number = ticker, second, 0
        number += 1
        if number < 3:
            baseline = price
        elif number == 3:
            baseline = min(baseline, price)
        if (
            number >= 3
            and (price - baseline) / baseline * 100 >= 5.0
            and 0.4 <= price < 11
            and rating == "BUY"
        ):
            alerts += 1
    return alerts


def _day_s(seconds: int) -> float:
    """The whole command on files, without the interpreter's start."""
    dice = random.Random(2)
    with tempfile.TemporaryDirectory(prefix="newshead-replay-") as folder:
        trades, news = Path(folder) / "trades.csv", Path(folder) / "news.csv"
        with trades.open("w") as file:
            file.write("seconds,ticker,price,size\n")
            for number in range(int(TICKERS * TRADES_A_SECOND * seconds)):
                at, ticker = number / (TICKERS * TRADES_A_SECOND), dice.randrange(TICKERS)
                file.write(f"{at:.3f},T{ticker:03},{dice.uniform(4.9, 5.3):.2f},100\n")
        lines = [f"{dice.uniform(0, seconds):.3f},T{n:03},BUY,high\n" for n in range(WINDOWS_A_DAY)]
        news.write_text("".join(["seconds,ticker,recommendation,confidence\n", *lines]))
        arguments = ["--csv", str(trades), "--news", str(news), "--change-pct", "3,4,5,6"]
        with Path(os.devnull).open("w") as nothing, contextlib.redirect_stdout(nothing):
            return _took_s(lambda: main(arguments))


def _took_s(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
