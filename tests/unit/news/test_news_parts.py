"""The states of the sources, the rating and the ticker list."""

from datetime import UTC, datetime
from typing import Any

import pytest

from newshead.core.parts import Part, PartState
from newshead.news.parts import SourceState, list_part, rating_part, source_parts

# A Friday, 10:00 in New York.
BUSY = datetime(2026, 11, 27, 15, 0, tzinfo=UTC)
NAMES = ("benzinga", "wires")


def state_of(state: PartState, age_s: float | None, now: datetime, running_s: float) -> Part:
    source = SourceState("benzinga", state, "", 7, age_s)
    return source_parts([source], NAMES, now, running_s)[-1]


def test_each_source_is_a_part_and_one_that_is_not_read_is_off() -> None:
    source = SourceState("wires", PartState.LOST, "no connection.", 7, 3.0)
    assert source_parts([source], NAMES, BUSY, 10.0) == [
        Part("news benzinga", PartState.OFF, "it is not read."),
        Part("news wires", PartState.LOST, "no connection.", 3.0, {"messages": 7}),
    ]


@pytest.mark.parametrize(
    ("age_s", "running_s", "now", "state"),
    [
        (899.0, 5000.0, BUSY, PartState.OK),
        (900.0, 5000.0, BUSY, PartState.DEGRADED),
        (None, 899.0, BUSY, PartState.OK),
        (None, 900.0, BUSY, PartState.DEGRADED),
        # On a Saturday, at night, and at 07:14 and 07:15 in New York.
        (5000.0, 5000.0, datetime(2026, 11, 28, 15, 0, tzinfo=UTC), PartState.OK),
        (5000.0, 5000.0, datetime(2026, 11, 27, 22, 0, tzinfo=UTC), PartState.OK),
        (5000.0, 5000.0, datetime(2026, 11, 27, 12, 14, tzinfo=UTC), PartState.OK),
        (5000.0, 5000.0, datetime(2026, 11, 27, 12, 15, tzinfo=UTC), PartState.DEGRADED),
    ],
)
def test_15_minutes_without_a_message_are_quiet_on_weekdays_from_7_to_17(
    age_s: float | None, running_s: float, now: datetime, state: PartState
) -> None:
    part = state_of(PartState.OK, age_s, now, running_s)
    assert part.state is state
    assert part.reason.startswith("no message of any source for " if part.reason else "")


def test_one_source_with_messages_is_enough_and_a_failure_stays_one() -> None:
    quiet = SourceState("benzinga", PartState.OK, "", 1, 2000.0)
    lively = SourceState("wires", PartState.OK, "", 1, 20.0)
    parts = source_parts([quiet, lively], NAMES, BUSY, 5000.0)
    assert [part.state for part in parts] == [PartState.OK, PartState.OK]
    assert state_of(PartState.REFUSED, 2000.0, BUSY, 5000.0).state is PartState.REFUSED


@pytest.mark.parametrize(
    ("facts", "state", "reason"),
    [
        ({}, PartState.OK, ""),
        ({"idle": "no key is set."}, PartState.OFF, "nothing will alert: no key is set."),
        ({"refused": ["A", "B"]}, PartState.REFUSED, "every article is HOLD"),
        ({"refused": ["A"]}, PartState.DEGRADED, "the service refuses A:"),
        ({"refused": ["A"], "problem": "busy."}, PartState.LOST, "HOLD until it works: busy."),
    ],
)
def test_how_the_rating_fares(facts: dict[str, Any], state: PartState, reason: str) -> None:
    known: dict[str, Any] = {"idle": "", "keys": 2, "refused": [], "problem": ""}
    part = rating_part(**known | facts, success_age_s=None)
    assert (part.state, reason in part.reason) == (state, True)


@pytest.mark.parametrize(
    ("stocks", "needed", "problem", "state"),
    [
        (5, True, "", PartState.OK),
        (5, True, "it expired.", PartState.DEGRADED),
        (0, True, "it expired.", PartState.LOST),
        (0, False, "", PartState.OFF),
    ],
)
def test_how_the_ticker_list_fares(
    stocks: int, needed: bool, problem: str, state: PartState
) -> None:
    assert list_part(stocks, needed=needed, problem=problem).state is state
