"""What the newest rows of all parts tell together."""

from datetime import UTC, datetime, timedelta

import pytest

from newshead.core.parts import (
    DATABASE,
    IBKR,
    KINDS,
    MARKET_DATA,
    MONITOR,
    PAGE,
    RATING,
    Mended,
    Part,
    PartState,
    Told,
    degraded,
    failing,
    kind_of,
    mended,
    newest,
    of_line,
)

NOW = datetime(2026, 11, 27, 15, 0, tzinfo=UTC)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def told(
    name: str, state: PartState = PartState.OK, *, at: float = 1.0, since: float = 60.0
) -> Told:
    return Told(name, state, f"{name} is {state.value}.", ago(since), ago(at))


def fails(*rows: Told) -> list[str]:
    return [part.name for part in failing(newest(rows, NOW), NOW)]


def test_the_newest_row_of_a_part_counts() -> None:
    rows = [told(RATING, at=1), told(RATING, PartState.LOST, at=30), told(IBKR)]
    assert [(part.name, part.state) for part in newest(rows, NOW)] == [
        (IBKR, PartState.OK),
        (RATING, PartState.OK),
    ]


@pytest.mark.parametrize(
    ("row", "state"),
    [
        (told(RATING, at=15), PartState.OK),
        (told(RATING, at=15.1), PartState.LOST),
        (told(RATING, PartState.REFUSED, at=16), PartState.LOST),
        (told(RATING, PartState.OFF, at=3000), PartState.OFF),
    ],
)
def test_a_part_that_tells_nothing_for_15_s_is_lost_but_for_one_that_is_off(
    row: Told, state: PartState
) -> None:
    assert newest([row], NOW)[0].state is state


def test_silence_names_who_is_silent_and_since_when_in_new_york() -> None:
    parts = newest([told(RATING, at=60), told(MONITOR, at=60)], NOW)
    assert [part.problem.partition(":")[2][:60] for part in parts] == [
        " the price monitor has told nothing since 09:59:00 New York ",
        " newshead has told nothing since 09:59:00 New York time: it ",
    ]


def test_a_failure_that_costs_alerts_is_told_and_what_works_or_costs_none_is_not() -> None:
    rows = [
        told(IBKR),
        told("news benzinga", PartState.REFUSED),
        told(PAGE, PartState.LOST),
        told(RATING, PartState.DEGRADED),
        told("news wires", PartState.OFF),
    ]
    assert fails(*rows) == ["news benzinga"]
    assert [part.name for part in degraded(newest(rows, NOW))] == [RATING]


def test_each_cause_is_told_once() -> None:
    lost = [told(IBKR, PartState.LOST), told(MARKET_DATA, PartState.LOST)]
    assert fails(*lost) == [IBKR]
    assert fails(told(IBKR), lost[1]) == [MARKET_DATA]
    gone = [told(name, at=20) for name in (MONITOR, IBKR, MARKET_DATA, RATING)]
    assert fails(*gone) == [MONITOR]
    assert fails(told(DATABASE, PartState.LOST), told(RATING, at=20)) == [DATABASE]
    assert fails(told(MONITOR), told(RATING, at=20)) == [RATING]


def test_what_is_mended_is_told_with_its_begin_and_end_the_newest_first() -> None:
    rows = [
        told(IBKR, PartState.LOST, since=500, at=450),
        told(IBKR, since=440, at=1),
        told(RATING, PartState.LOST, since=300, at=250),
        told(RATING, PartState.REFUSED, since=250, at=210),
        told(RATING, since=200, at=1),
        told(PAGE, PartState.LOST, since=100, at=1),
    ]
    assert mended(rows) == [
        Mended(RATING, "rating is lost.", ago(300), ago(200)),
        Mended(IBKR, "ibkr is lost.", ago(500), ago(440)),
    ]


def test_a_stop_mends_nothing() -> None:
    rows = [
        told(IBKR, PartState.LOST, since=500, at=450),
        told(IBKR, PartState.OFF, since=440, at=430),
    ]
    assert mended(rows) == []
    rows.append(told(IBKR, since=100, at=1))
    assert mended(rows) == [Mended(IBKR, "ibkr is lost.", ago(500), ago(100))]


def test_a_silence_that_is_over_is_mended_too() -> None:
    rows = [told(MONITOR, since=500, at=400), told(MONITOR, since=100, at=1)]
    [found] = mended(rows)
    assert (found.since, found.until) == (ago(400), ago(100))
    assert "has told nothing since 09:53:20" in found.reason


def test_a_part_of_the_moment_is_a_row_without_the_database() -> None:
    part = Part(PAGE, PartState.LOST, "Why.", 5.0)
    assert part.told(NOW) == Told(PAGE, PartState.LOST, "Why.", NOW, NOW, ago(5))
    assert Part(PAGE, PartState.OK).told(NOW).success is None


def test_a_problem_names_the_part_and_the_state_where_no_reason_is_known() -> None:
    assert told(IBKR, PartState.LOST).problem == "ibkr: ibkr is lost."
    assert told(IBKR, PartState.LOST)._replace(reason="").problem == "ibkr: lost"


@pytest.mark.parametrize(
    ("name", "kind"), [("news alpaca", "news"), (MARKET_DATA, "market-data"), (RATING, "rating")]
)
def test_every_part_is_of_a_kind_that_can_be_silenced(name: str, kind: str) -> None:
    assert kind_of(name) == kind
    assert kind in KINDS


def test_a_line_for_the_parent_says_it_all() -> None:
    part = Part(PAGE, PartState.DEGRADED, "Why.", None, {"viewers": 2})
    assert of_line(PAGE, part.line()) == part


@pytest.mark.parametrize("line", ["", ".", "[]", '["fine", "", {}]', '["ok", "", 1]', "1"])
def test_another_line_is_no_part(line: str) -> None:
    assert of_line(PAGE, line) is None
