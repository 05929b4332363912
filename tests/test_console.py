"""The live table on a terminal: what it says, and that the terminal is left as it was."""

import io
import logging
import time
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from clickhouse_manager import Outcome, Rating
from dashboard.console import LogLines, View, screen
from dashboard.queries import Card, Point, Status

NOW = datetime(2026, 11, 25, 14, 30, 20, tzinfo=UTC)
STATUS = Status(
    timestamp=NOW - timedelta(seconds=2),
    state="ready",
    state_since=NOW - timedelta(seconds=75),
    mode="PAPER",
    delayed=False,
    account="*******67",
    active_tickers=1,
    cycles=12,
    ticks=40,
    rows=9,
    last_cycle_ms=31.4,
    kept_rows=0,
    reconnects=0,
    clock_difference_s=0.1,
    last_error="",
)


def card(ticker: str, headline: str = "A headline", recommendation: str = "HOLD") -> Card:
    begin = int(NOW.timestamp()) - 20
    prices = (2.0, 2.0, 2.0, 2.2)
    points = tuple(
        Point(begin + 2 * n, price, 100, (price - 2) / 2 * 100, 2 * n)
        for n, price in enumerate(prices)
    )
    return Card(
        ticker=ticker,
        news_at=NOW - timedelta(seconds=21),
        headline=headline,
        article_url="",
        published_utc="",
        rating=Rating("neutral", recommendation, "low"),
        opened=NOW - timedelta(seconds=20),
        last_row=NOW - timedelta(seconds=14),
        baseline=2.0,
        due=0,
        outcome=Outcome(0, 4, 2, 10.0, 1, 1),
        points=points,
        alerts=(),
    )


def view(status: Status | None = STATUS, cards: tuple[Card, ...] = (), problem: str = "") -> View:
    return View(NOW, time.monotonic(), status, cards, len(cards), problem)


def drawn(shown: View, log: LogLines | None = None, height: int = 24) -> list[str]:
    """The screen's lines, with the codes that steer a terminal."""
    terminal = Console(
        file=io.StringIO(), width=160, height=height, force_terminal=True, color_system="standard"
    )
    with terminal.capture() as captured:
        terminal.print(screen(shown, log or LogLines(), height))
    return captured.get().splitlines()


def test_a_card_and_the_monitors_state_stand_in_a_line_each() -> None:
    lines = drawn(view(cards=(card("ABCD"),)))
    assert "PAPER" in lines[0]
    assert "ready" in lines[0]
    assert "for 0:01:15, account *******67, 1 tickers, cycle 12 in 31 ms" in lines[0]
    [line] = [line for line in lines if "ABCD" in line]
    for text in ("A headline", "HOLD low", "2.2000", "+10.0 %", "40 s", "held back: HOLD"):
        assert text in line


@pytest.mark.parametrize(
    ("shown", "told"),
    [
        (view(status=None), "No monitor has written its status yet."),
        (view(problem="Connection refused."), "The database cannot be read: Connection refused."),
        (
            view(status=STATUS._replace(timestamp=NOW - timedelta(seconds=16))),
            "NO SIGN OF THE MONITOR FOR 16 s",
        ),
        (view(status=STATUS._replace(delayed=True)), "DELAYED DATA"),
        (view(status=STATUS._replace(kept_rows=7)), "7 rows kept"),
        (view(status=STATUS._replace(last_error="ClickHouse failed")), "last error ClickHouse"),
    ],
)
def test_what_is_wrong_stands_in_the_first_line(shown: View, told: str) -> None:
    assert told in drawn(shown)[0]


def test_a_hostile_headline_or_log_line_cannot_steer_the_terminal() -> None:
    log = LogLines()
    log.add("\x1b]0;title\x07\x1b[2Jlog")
    headline = "[red]\x1b[2J\x9b2J\u202egnp.exe[/red]"
    text = "\n".join(drawn(view(cards=(card("ABCD", headline),)), log))
    for code in ("\x1b[2J", "\x1b]0", "\x07", "\x9b", "\u202e"):
        assert code not in text
    # Nor is it taken for rich's own markup.
    assert "[red]" in text


def test_everything_fits_the_terminals_height_and_says_what_it_leaves_out() -> None:
    log = LogLines()
    for number in range(100):
        log.add(f"line {number}")
    many = tuple(card(f"T{number}") for number in range(50))
    lines = drawn(view(cards=many), log, height=24)
    assert len(lines) == 24
    assert any("35 more tickers" in line for line in lines)
    assert "line 99" in lines[-1]


def test_a_log_record_of_several_lines_takes_as_many() -> None:
    log = LogLines()
    log.emit(logging.LogRecord("n", logging.ERROR, "", 0, "first\nsecond", (), None))
    assert [line.split()[-1] for line in log.newest(2)] == ["first", "second"]
