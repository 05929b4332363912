"""The command on files: what it refuses, and what it shows."""

import os
import threading
import tracemalloc
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from newshead.core.rule import Rule
from newshead.replay import files
from newshead.replay.__main__ import main
from newshead.replay.day import Day
from newshead.replay.files import NewsLine, Trade

TRADES = "seconds,ticker,price,size\n"
NEWS = "seconds,ticker,recommendation,confidence\n"
DAY = datetime(2026, 1, 2, 14, 30, tzinfo=UTC)


def steps(ticker: str, *prices: float) -> str:
    """A trade in each slot."""
    return "".join(f"{2 * n},{ticker},{price},100\n" for n, price in enumerate(prices))


def refused(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The sentence with which the command refuses its arguments or files."""
    try:
        code: object = main(arguments)
    except SystemExit as end:
        code = end.code
    shown = capsys.readouterr()
    assert (code, shown.out) == (2, "")
    assert shown.err.startswith("python -m newshead.replay: ")
    assert shown.err.count("\n") == 1
    return shown.err


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "trades.csv, line 1: the header must be seconds,ticker,price,size, not ''"),
        ("a,b\n", "trades.csv, line 1: the header must be seconds,ticker,price,size, not 'a,b'"),
        (f"{TRADES}1,ABCD,2,3\n\nx,ABCD,2,3\n", "trades.csv, line 4: seconds must be a number"),
        (f"{TRADES}-1,ABCD,2,3\n", "line 2: seconds must be a number from 0 to 1000000000"),
        (f"{TRADES}1e300,ABCD,2,3\n", "line 2: seconds must be"),
        (f"{TRADES}nan,ABCD,2,3\n", "line 2: seconds must be"),
        (f"{TRADES}1,,2,3\n", "line 2: ticker must be printable ASCII, not ''"),
        (f"{TRADES}1,Ä,2,3\n", "line 2: ticker must be printable ASCII, not 'Ä'"),
        (f"{TRADES}1,ABCD,0,3\n", "line 2: price must be a positive number, not '0'"),
        (f"{TRADES}1,ABCD,inf,3\n", "line 2: price must be a positive number, not 'inf'"),
        (f"{TRADES}1,ABCD,2,-3\n", "line 2: size must be a positive number, not '-3'"),
        (f"{TRADES}1,ABCD,2\n", "line 2: not seconds,ticker,price,size but '1,ABCD,2'"),
        (f"{TRADES}{'x' * 99}\n", f"not seconds,ticker,price,size but '{'x' * 60}...'."),
        (f'{TRADES}1,ABCD,2,3\n1,"ABCD,2,3\n', "line 3: unexpected end of data"),
    ],
)
def test_trades_that_cannot_be_used_are_refused_by_file_and_line(
    text: str, problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "trades.csv").write_text(text)
    assert problem in refused(["--csv", str(tmp_path / "trades.csv")], capsys)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (TRADES, "news.csv, line 1: the header must be seconds,ticker,recommendation,confidence"),
        (f"{NEWS}1,A B C,BUY,low\n", "news.csv, line 2: ticker must be one such as ABCD or BRK.B"),
        (f"{NEWS}1,ABCD,buy,low\n", "line 2: recommendation must be BUY, HOLD, SELL, not 'buy'"),
        (f"{NEWS}-1,ABCD,BUY,low\n", "line 2: seconds must be a number"),
    ],
)
def test_news_that_cannot_be_used_is_refused_by_file_and_line(
    text: str, problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "trades.csv").write_text(TRADES)
    (tmp_path / "news.csv").write_text(text)
    arguments = ["--csv", str(tmp_path / "trades.csv"), "--news", str(tmp_path / "news.csv")]
    assert problem in refused(arguments, capsys)


def test_a_file_that_cannot_be_read_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "missing.csv cannot be read: No such file" in refused(["--csv", "missing.csv"], capsys)


def test_bytes_that_are_no_text_are_refused_by_their_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "latin.csv").write_bytes(f"{TRADES}1,ABCD,2,3\n".encode() + b"1,\xc4,2,3\n")
    told = refused(["--csv", "latin.csv"], capsys)
    assert r"latin.csv, line 3: ticker must be printable ASCII, not '\udcc4'" in told


def test_trades_may_come_through_a_pipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    text = TRADES + "1,ABCD,2,3\n" * (files.TELL_EVERY_LINES + 1)
    writer = threading.Thread(target=pipe.write_text, args=(text,), daemon=True)
    writer.start()
    assert main(["--csv", str(pipe), "--json"]) == 0
    writer.join()
    assert '"rows": 1' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "one of the arguments --csv --history FILE is required"),
        (["--csv", "x", "--history"], "not allowed with argument"),
        (["--csv", "x", "--since", "2026-01-02"], "--since goes with --history"),
        (["--csv", "x", "--ticker", "ABCD"], "--ticker goes with --history"),
        (["--csv", "x", "--rows"], "--rows goes with --json"),
        (["--csv", "x", "--results", "--json"], "--results and --json exclude each other"),
        (["--csv", "x", "--begin", "now"], "'now' is no time such as 2026-01-02T14:30:00Z"),
        (["--history", "--news", "x"], "--news goes with --csv"),
        (["--history", "--begin", "2026-01-02"], "--begin goes with --csv"),
        (["--history", "--window", "60,61"], "--window 61 is above the 60 s"),
        (["--history", "--since", "2.1.2026"], "'2.1.2026' is no day such as 2026-01-02"),
        (["--history", "--since", "2026-01-02", "--until", "2026-01-01"], "--until 2026-01-01 is"),
        (["--history", "--ticker", "A B C"], "'A B C' is no ticker"),
        (["--csv", "x", "--change-pct", "3,0"], "'0' is not a change in percent above 0"),
        (["--csv", "x", "--window", "4.5"], "'4.5' is not a window of 1 to 86400 s"),
        (["--csv", "x", "--prices", "5"], "is not a price, in LOW:HIGH"),
        (["--csv", "x", "--prices", "5:5"], "LOW must be below HIGH"),
        (["--csv", "x", "--ratings", "BUY,MAYBE"], "'MAYBE' is none of BUY, HOLD, SELL"),
        (["--csv", "x", "--baseline-rows", "0,2"], "'0' is not the number of a row"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(
    arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert problem in refused(arguments, capsys)


def test_history_without_a_database_is_refused_and_makes_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "there is no database in data/clickhouse" in refused(["--history"], capsys)
    assert not list(tmp_path.iterdir())


def test_the_table_says_what_changes_against_the_live_rule(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "trades.csv").write_text(
        TRADES + steps("ABCD", 2, 2, 2, 2.12, 2.2) + steps("EFGH", 5, 5, 5, 5.2) + steps("IJ", 9)
    )
    assert main(["--csv", "trades.csv", "--change-pct", "3,5,7", "--out", "figures.csv"]) == 0
    shown = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in shown]
    assert cells[0][-4:] == ["windows", "alerts", "tickers", "against the live rule"]
    assert [line[:1] + line[-4:] for line in cells[1:]] == [
        ["3 %", "3", "3", "2", "+1 -0 alerts: +EFGH"],
        ["5 %", "3", "2", "1", "the same"],
        ["7 %", "3", "1", "1", "+0 -1 alerts"],
    ]
    assert (tmp_path / "figures.csv").read_text().splitlines()[1:] == [
        f"{DAY.isoformat()},{change},60,0.4,11.0,BUY,2 3,3,{figures}"
        for change, figures in (("3.0", "3,2,1,0"), ("5.0", "2,1,0,0"), ("7.0", "1,1,0,1"))
    ]


def test_a_days_results_end_with_its_window(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "trades.csv").write_text(
        TRADES + steps("ABCD", 2, 2, 2, 2.2, 2.42) + steps("EF", 2, 2)
    )
    assert main(["--csv", str(tmp_path / "trades.csv"), "--results"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(
        "change 5 %, window 60 s, prices 0.4 to 11, ratings BUY, baseline 2,3\n"
    )
    assert "1 window, 1 of them alerted, 0 followed up; 1 had too few prices to judge." in shown
    assert "Best, window's end:\n  ABCD     2026-01-02 14:30:06 UTC     2.2000   +10.0 %" in shown
    assert shown.count("No fees and no slippage") == 1
    every = ["--change-pct", "12.5", "--ratings", "BUY,HOLD,SELL"]
    assert main(["--csv", str(tmp_path / "trades.csv"), "--results", *every]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_a_figures_file_that_cannot_be_written_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "trades.csv").write_text(TRADES)
    told = refused(["--csv", "trades.csv", "--out", "missing/figures.csv"], capsys)
    assert "missing/figures.csv cannot be written: No such file or directory." in told


def test_a_variant_that_is_listed_twice_is_shown_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "trades.csv").write_text(TRADES)
    options = ["--change-pct", "5,5.0", "--ratings", "BUY,HOLD", "--ratings", "HOLD,BUY"]
    assert main(["--csv", "trades.csv", "--json", *options]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_trade_a_moment_before_a_slots_end_is_in_it() -> None:
    day = Day(DAY, None, 60)
    for seconds in (0.0, 3.9999999):
        day.add(Trade(seconds, "ABCD", 5.0, 100.0))
    [window] = day.session().windows
    assert [row.time - DAY.timestamp() for row in window.prices] == [0, 3]


def test_a_day_keeps_only_what_its_windows_may_need() -> None:
    day = Day(DAY, [NewsLine(0.0, "ABCD", "BUY")], 60)
    tracemalloc.start()
    for number in range(20_000):
        day.add(Trade(2.0 * number, "ABCD", 5.0, 100.0))
        day.add(Trade(2.0 * number, "EFGH", 5.0, 100.0))
    kept_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept_bytes < 200_000
    [window] = day.session().windows
    assert len(window.rows(Rule())) == 30


def test_a_window_of_an_odd_length_has_its_last_slot_whole() -> None:
    day = Day(DAY, [NewsLine(0.0, "ABCD", "BUY")], 61)
    for seconds in (0.1, 1.9, 60.2, 61.9):
        day.add(Trade(seconds, "ABCD", seconds, 100.0))
    [window] = day.session().windows
    assert [row.price for row in window.rows(Rule(window_s=61))] == [1.9, 61.9]
