"""The stored sessions judged again, from the real engine; and the command as a process."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from monitoring import connected, with_tables
from watching import write_alerts, write_prices

from clickhouse_manager import ClickHouseManager
from newshead.core import rule
from newshead.database.kind import Kind
from newshead.database.tables import PRICE_TRACKING
from newshead.replay.__main__ import main
from newshead.settings import Settings

PROJECT = Path(__file__).resolve().parents[2]
# Two days that the tables' rows have not expired on, in New York's morning.
FIRST_DAY = datetime.now(UTC).replace(hour=15, minute=0, second=1, microsecond=0) - timedelta(
    days=3
)
SECOND_DAY = FIRST_DAY + timedelta(days=1)

RISING = [2.0, 2.0, 2.0, 2.05, 2.2, 2.3]
FLAT = [2.0, 2.0, 2.0, 2.05]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[ClickHouseManager]:
    """The embedded engine, where the command finds it."""
    with connected(Settings(clickhouse_path=tmp_path / "data/clickhouse")) as manager:
        manager.create_tables()
        yield manager


def replayed(capsys: pytest.CaptureFixture[str], *options: str) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert main(["--history", "--json", *options]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def windows(result: dict[str, Any]) -> list[tuple[str, str, int, int]]:
    return [(w["ticker"], w["first"], w["rows"], w["alerts"]) for w in result["windows"]]


def test_a_session_is_judged_as_live_did(
    database: ClickHouseManager, capsys: pytest.CaptureFixture[str]
) -> None:
    stories: dict[str, tuple[list[float], str]] = {
        "ABCD": (RISING, "BUY"),
        "EFGH": (RISING, "HOLD"),
        "IJ": (FLAT, "BUY"),
        "K": ([5], ""),
    }
    for ticker, (prices, rating) in stories.items():
        write_prices(database, ticker, prices, began=FIRST_DAY, recommendation=rating)
    write_prices(database, "DEAR", [20, 20, 20, 22], began=FIRST_DAY)
    write_alerts(database, *stories)
    database.client.insert(
        "News.float_list_detailed_dedup", [["ABCD", 4.5]], column_names=["ticker", "strength_score"]
    )
    tickers = [*stories, "DEAR"]
    logged = {t: rule.describe(found) for t, found in database.outcomes(tickers).items()}
    moved = database.client.query("SELECT ticker, timestamp FROM News.news_alert ORDER BY ALL")

    [current] = replayed(capsys)
    database.move_session()
    [past] = replayed(capsys)

    assert past == current
    assert {w["ticker"]: w["outcome"] for w in past["windows"]} == logged
    assert [(a["ticker"], a["timestamp"]) for a in past["alerts"]] == [
        (ticker, at.isoformat()) for ticker, at in moved.result_rows
    ]
    assert {a["alert"] for a in past["alerts"]} == {1}
    assert past["session"] == FIRST_DAY.isoformat()
    assert {w["best_change_pct"] for w in past["windows"] if w["ticker"] == "K"} == {None}


def test_a_ticker_has_a_window_in_each_session(
    database: ClickHouseManager,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SESSION_ROLL", "04:00")
    restarted = FIRST_DAY + timedelta(minutes=2)
    for began, price in ((FIRST_DAY, 2.0), (restarted, 3.0), (SECOND_DAY, 4.0)):
        write_prices(database, "ABCD", [price] * 3, began=began)
        if began != restarted:
            write_prices(database, "EFGH", [price] * 4, began=began)
        database.move_session()
    # Without the roll the third day's window would be of the second day's session.
    write_prices(database, "IJ", [1.0] * 3, began=SECOND_DAY + timedelta(days=1))
    database.move_session()
    # Seconds after rows of the history, but in the session that goes on.
    current = SECOND_DAY + timedelta(days=1, seconds=10)
    write_prices(database, "IJ", [9.0] * 2, began=current)

    assert [(found["session"], windows(found)) for found in replayed(capsys)] == [
        (
            FIRST_DAY.isoformat(),
            [("ABCD", FIRST_DAY.isoformat(), 3, 0), ("EFGH", FIRST_DAY.isoformat(), 4, 0)],
        ),
        (restarted.isoformat(), [("ABCD", restarted.isoformat(), 3, 0)]),
        (
            SECOND_DAY.isoformat(),
            [("ABCD", SECOND_DAY.isoformat(), 3, 0), ("EFGH", SECOND_DAY.isoformat(), 4, 0)],
        ),
        (
            (SECOND_DAY + timedelta(days=1)).isoformat(),
            [("IJ", (SECOND_DAY + timedelta(days=1)).isoformat(), 3, 0)],
        ),
        (current.isoformat(), [("IJ", current.isoformat(), 2, 0)]),
    ]


def test_rows_that_an_outage_brought_after_the_windows_end_are_of_it(
    database: ClickHouseManager, capsys: pytest.CaptureFixture[str]
) -> None:
    write_prices(database, "ABCD", [2.0] * 31 + [3.0] * 40, began=FIRST_DAY)
    [found] = replayed(capsys)
    assert windows(found) == [("ABCD", FIRST_DAY.isoformat(), 71, 0)]


def test_days_and_a_ticker_in_any_spelling_can_be_asked_for(
    database: ClickHouseManager, capsys: pytest.CaptureFixture[str]
) -> None:
    for began in (FIRST_DAY, SECOND_DAY):
        for ticker in ("ABCD", "BRK B"):
            write_prices(database, ticker, FLAT, began=began)
        database.move_session()

    def asked(*options: str) -> list[tuple[str, str]]:
        found = [windows(result) for result in replayed(capsys, *options)]
        return [(ticker, first[:10]) for result in found for ticker, first, *_ in result]

    first, second = str(FIRST_DAY.date()), str(SECOND_DAY.date())
    assert asked("--since", second) == [("ABCD", second), ("BRK B", second)]
    assert asked("--until", first) == [("ABCD", first), ("BRK B", first)]
    assert asked("--since", first, "--until", first, "--ticker", "brk.b") == [("BRK B", first)]
    assert asked("--ticker", "ZZZZ") == []
    assert main(["--history", "--since", "2026-01-02", "--until", "2026-01-02"]) == 0
    assert capsys.readouterr().err == "No rows are stored for this.\n"


def test_what_if_goes_through_the_stored_rows_with_their_own_ratings(
    database: ClickHouseManager, capsys: pytest.CaptureFixture[str]
) -> None:
    write_prices(database, "ABCD", FLAT, began=FIRST_DAY)
    write_prices(database, "EFGH", RISING, began=FIRST_DAY, recommendation="HOLD")
    assert main(["--history", "--change-pct", "2", "--ratings", "BUY", "--ratings", "HOLD"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [re.split("  +", line)[5:] for line in lines[1:]] == [
        ["2", "1", "1", "+1 -0 alerts: +ABCD"],
        ["2", "3", "1", "+3 -0 alerts: +EFGH"],
    ]
    [found] = replayed(capsys, "--window", "2", "--rows")
    assert windows(found) == [
        ("ABCD", FIRST_DAY.isoformat(), 4, 0),
        ("EFGH", FIRST_DAY.isoformat(), 6, 0),
    ]
    assert found["windows"][0]["outcome"] == "no alert, only 4 prices"
    assert found["rows"][0] == {
        "ticker": "ABCD",
        "timestamp": FIRST_DAY.isoformat(),
        "price": 2.0,
        "volume": 100,
        "recommendation": "BUY",
    }


def test_what_no_number_can_say_is_null(
    database: ClickHouseManager, capsys: pytest.CaptureFixture[str]
) -> None:
    write_prices(database, "ABCD", [0.0, 0.0, 0.0, 1.0], began=FIRST_DAY)
    [found] = replayed(capsys)
    assert found["windows"][0]["best_change_pct"] is None
    assert [alert["change_pct"] for alert in found["alerts"]] == [None]


def test_rows_of_an_interrupted_move_are_left_out_and_counted(
    database: ClickHouseManager, capsys: pytest.CaptureFixture[str]
) -> None:
    write_prices(database, "ABCD", FLAT, began=FIRST_DAY)
    moving = PRICE_TRACKING._replace(name="price_tracking_moving").ddl(Kind.ATOMIC)
    database.client.command(moving)
    database.client.command("EXCHANGE TABLES News.price_tracking AND News.price_tracking_moving")
    assert main(["--history", "--json"]) == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Left out 4 rows of an interrupted move" in shown.err


def command(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "newshead.replay", *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(PROJECT), **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_command_reads_a_server(page_settings: Settings, tmp_path: Path) -> None:
    where = {
        "CLICKHOUSE_HOST": page_settings.clickhouse_host,
        "CLICKHOUSE_PORT": str(page_settings.clickhouse_port),
    }
    with with_tables(page_settings) as manager:
        write_prices(manager, "ABCD", RISING, began=FIRST_DAY)
        done = command(tmp_path, "--history", **where)
    assert (done.returncode, done.stderr) == (0, "")
    assert "the same" in done.stdout


def test_a_server_that_does_not_answer_is_one_sentence(tmp_path: Path) -> None:
    done = command(tmp_path, "--history", CLICKHOUSE_HOST="127.0.0.1", CLICKHOUSE_PORT="1")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"python -m newshead\.replay: ClickHouse at .*\n", done.stderr)


def test_a_reader_that_has_read_enough_ends_the_command_quietly(tmp_path: Path) -> None:
    trades = "".join(f"0,T{number},1,1\n" for number in range(20_000))
    (tmp_path / "trades.csv").write_text(f"seconds,ticker,price,size\n{trades}")
    replay = f"{sys.executable} -m newshead.replay --csv trades.csv --json --rows"
    done = subprocess.run(
        ["/bin/bash", "-c", f"{replay} --change-pct 1,2,3 | head -c 10; exit ${{PIPESTATUS[0]}}"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(PROJECT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, '{"session"')
    # A slow machine is told how far it is.
    assert [line for line in done.stderr.splitlines() if not line.startswith("judging: ")] == []
