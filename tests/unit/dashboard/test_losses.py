"""When the push tells that a part is lost, and that it is back."""

from datetime import UTC, datetime, timedelta

import pytest

from dashboard.losses import LossWatch
from newshead.core.parts import DATABASE, IBKR, MARKET_DATA, MONITOR, RATING, PartState, Told

START = datetime(2026, 11, 27, 15, 0, tzinfo=UTC)
BLIND = "blind"
GONE = "gone"


def at(second: float) -> datetime:
    return START + timedelta(seconds=second)


def told(name: str, state: PartState, since: float, now: float) -> Told:
    return Told(name, state, f"{name} is {state.value}.", at(since), at(now))


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        # second → how the connection is from then on (GONE: nobody tells anything any more, BLIND:
        # the database cannot be read), and in which second what is told.
        ({0: "ok"}, {}),
        ({0: "ok", 10: "lost", 39: "ok"}, {}),
        ({0: "ok", 10: "lost", 50: "ok"}, {40: "connection to IBKR is lost", 50: "is back"}),
        ({0: "ok", 10: "refused"}, {10: "connection to IBKR is refused"}),
        ({0: "ok", 10: "lost", 50: "off"}, {40: "connection to IBKR is lost"}),
        (
            {0: "ok", 10: "lost", 50: "off", 60: "ok"},
            {40: "connection to IBKR is lost", 60: "is back"},
        ),
        ({0: "ok", 10: GONE, 70: "ok"}, {39: "price monitor is lost", 70: "is back"}),
        ({0: "ok", 10: BLIND, 39: GONE, 45: "ok"}, {}),
        ({0: "ok", 10: BLIND, 60: "ok"}, {40: "database is lost", 60: "database is back"}),
        ({0: "ok", 10: BLIND, 20: GONE}, {50: "price monitor is lost"}),
        ({0: None}, {30: "price monitor is lost"}),
    ],
)
def test_what_is_lost_for_30_s_is_told_and_so_is_its_end(
    seen: dict[int, str | None], expected: dict[int, str]
) -> None:
    watch = LossWatch({})
    state: str | None = None
    since = 0
    rows: list[Told] = []
    found = {}
    for second in range(100):
        if second in seen:
            state, since = seen[second], second
        if state == BLIND:
            messages = watch.cannot_read("refused.", at(second), "PAPER")
        else:
            if state not in (GONE, None):
                rows = [
                    told(MONITOR, PartState.OK, 0, second),
                    told(DATABASE, PartState.OK, 0, second),
                    told(IBKR, PartState(state), since, second),
                ]
            messages = watch.see(rows, at(second), "PAPER")
        for message in messages:
            found[second] = message.title
    assert [*found] == [*expected]
    assert all(expected[second] in title for second, title in found.items())


def test_a_message_has_mode_reason_and_new_york_time_and_a_restart_tells_nothing_twice() -> None:
    watch = LossWatch({})
    rows = [
        told(MONITOR, PartState.OK, 0, 1),
        told(IBKR, PartState.OK, 0, 1),
        told(MARKET_DATA, PartState.LOST, 1, 1),
    ]
    [message] = watch.see(rows, at(1), "LIVE")
    assert message.title == "newshead: market data is lost"
    assert message.body.startswith("LIVE: market data is lost. Since 10:00:01 New York time.")
    again = LossWatch(watch.lost)
    assert again.see(rows, at(2), "LIVE") == []
    # A lost connection hides it, which is no end.
    lost = told(IBKR, PartState.LOST, 2, 2)
    assert again.see([rows[0], lost, rows[2]], at(3), "LIVE") == []
    [message] = again.see([*rows[:2], told(MARKET_DATA, PartState.OK, 3, 3)], at(4), "UNKNOWN")
    assert message.body == "it works again. It was lost at 10:00:01 New York time."
    assert not again.lost


def test_a_kind_that_is_silenced_is_not_told() -> None:
    watch = LossWatch({}, ("rating", "news"))
    rows = [
        told(MONITOR, PartState.OK, 0, 1),
        told(RATING, PartState.REFUSED, 1, 1),
        told("news benzinga", PartState.REFUSED, 1, 1),
    ]
    assert watch.see(rows, at(1), "LIVE") == []
