"""Results of stored sessions, from the real engine, through the command."""

import csv
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from monitoring import connected
from month import BAD, FEW, GOOD, NO_ALERT, write_month
from watching import ago, noon_of_yesterday, write_alerts, write_prices

from clickhouse_manager import ClickHouseManager
from newshead.replay.__main__ import main as replay
from newshead.results import main
from newshead.settings import Settings

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[ClickHouseManager]:
    """The embedded engine, where the command finds it."""
    with connected(Settings(clickhouse_path=tmp_path / "data/clickhouse")) as manager:
        manager.create_tables()
        yield manager


def line(text: str, label: str) -> str:
    """The first line of the output with a label."""
    return next(each.strip() for each in text.splitlines() if each.strip().startswith(label))


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_month_shows_what_it_was_made_of_and_where_it_says_too_little(
    database: ClickHouseManager, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_month(database, GOOD, BAD, FEW, NO_ALERT)
    # This session: a window without a follow-up, one without a baseline, one that is still open.
    began = ago(3000).replace(microsecond=0)
    write_prices(database, "NEW", [2.0, 2.0, 2.0, 2.2, 2.42], began=began)
    write_alerts(database, "NEW")
    write_prices(database, "FEWER", [2.0, 2.0], began=began)
    write_prices(database, "OPEN", [2.0, 2.0, 2.0, 2.2], began=ago(10))

    assert main(["--csv", str(tmp_path / "csv")]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert max(map(len, shown.out.splitlines())) <= 80
    assert shown.out.startswith("157 windows, 107 of them alerted, 156 followed up; 1 had too few")
    assert re.match(r"after 1 min +106 +0\.0 \(0\.0,0\.0\)", line(shown.out, "after 1 min"))
    for label, n, truth in (("high", 60, 4.0), ("low", 40, -2.0), ("HOLD", 50, -1.0)):
        found = re.match(rf"{label} +{n} +\S+ \((\S+),(\S+)\)", line(shown.out, f"{label} "))
        assert found, label
        assert float(found[1]) <= truth <= float(found[2])
    assert re.fullmatch("medium +6  too few to say", line(shown.out, "medium"))
    assert "No fees and no slippage" in shown.out

    groups = {(row["windows"], row["value"]): row for row in read(tmp_path / "csv/groups.csv")}
    assert groups["alerted", "wire"]["n"] == "66"
    assert groups["alerted", "under 1 USD"]["n"] == "40"
    assert groups["alerted", "3"]["enough"] == "0"
    windows = {row["ticker"]: row for row in read(tmp_path / "csv/windows.csv")}
    assert (len(windows), windows["NEW"]["followed_up"]) == (157, "0")
    assert windows["NEW"]["window's end %"] == "10.0"
    assert windows["NEW"]["after 5 min %"] == ""
    assert windows["AA"]["source"] == "wire"
    paths = read(tmp_path / "csv/paths.csv")
    assert (paths[0]["median_pct"], paths[0]["n"]) == ("0.0", "106")


def test_days_can_be_asked_for(
    database: ClickHouseManager, capsys: pytest.CaptureFixture[str]
) -> None:
    write_month(database, GOOD)
    today = noon_of_yesterday().date()
    week = today - timedelta(days=6)
    assert main(["--since", str(week), "--until", str(today)]) == 0
    # Of 28 days seven, and 60 windows.
    assert "18 windows, 18 of them alerted" in capsys.readouterr().out
    assert main(["--until", "2020-01-01"]) == 0
    assert capsys.readouterr().out == "No window is stored for this.\n"


def test_variants_are_judged_the_same_way(
    database: ClickHouseManager, capsys: pytest.CaptureFixture[str]
) -> None:
    write_month(database, GOOD)
    assert replay(["--history", "--results", "--change-pct", "5,7"]) == 0
    live, higher = capsys.readouterr().out.split("change 7 %")
    assert "60 windows, 60 of them alerted, 60 followed up" in live
    found = re.match(r"after 5 min +60 +\S+ \((\S+),(\S+)\)", line(live, "after 5 min"))
    assert found
    assert float(found[1]) <= GOOD.change_pct <= float(found[2])
    assert "60 windows, 0 of them alerted, 60 followed up" in higher


def test_what_cannot_be_done_is_one_sentence(tmp_path: Path) -> None:
    def told(*arguments: str, **variables: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "newshead.results", *arguments],
            cwd=tmp_path,
            env={"PYTHONPATH": str(PROJECT), **variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (done.stdout, done.stderr.count("\n")) == ("", 1)
        return done.returncode, done.stderr

    assert told() == (
        2,
        "python -m newshead.results: there is no database in data/clickhouse: start this where "
        "newshead is started, or set CLICKHOUSE_PATH or CLICKHOUSE_HOST.\n",
    )
    code, sentence = told(CLICKHOUSE_HOST="127.0.0.1", CLICKHOUSE_PORT="1")
    assert code == 1
    assert "ClickHouse at 127.0.0.1:1 cannot be used" in sentence
    code, sentence = told("--since", "2026-02-01", "--until", "2026-01-01")
    assert code == 2
    assert "--until 2026-01-01 is before --since 2026-02-01" in sentence
