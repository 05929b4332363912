"""The session's roll and the pauses between attempts, without a clock."""

import math
from datetime import UTC, date, datetime
from datetime import time as time_of_day
from zoneinfo import ZoneInfo

import pytest

from newshead.core.times import (
    in_trading_hours,
    midnight,
    next_roll_after,
    reconnect_pause_s,
    retry_pause_s,
)


@pytest.mark.parametrize(
    ("failures", "chance", "pause"),
    [
        (1, 0.5, 3.0),
        (2, 0.5, 6.0),
        (3, 0.5, 12.0),
        (6, 0.5, 60.0),
        (10_000, 0.5, 60.0),
        (1, 0.0, 2.4),
        (1, 1.0, 3.6),
    ],
)
def test_pauses_between_attempts_double_up_to_a_minute(
    failures: int, chance: float, pause: float
) -> None:
    assert retry_pause_s(failures, chance, first_s=3.0, max_s=60.0) == pytest.approx(pause)


@pytest.mark.parametrize(
    ("failures", "chance", "outage_s", "pause"),
    [
        (1, 0.5, 0.0, 3.0),
        (2, 1.0, 10.0, 5.0),
        (2, 0.0, 10.0, 10 / 3),
        (1000, 1.0, 299.0, 5.0),
        (1000, 0.5, 300.0, 60.0),
        (3, 0.5, math.inf, 12.0),
    ],
)
def test_a_lost_connection_is_tried_again_at_least_every_5_s_for_five_minutes(
    failures: int, chance: float, outage_s: float, pause: float
) -> None:
    waited = reconnect_pause_s(failures, chance, outage_s, first_s=3.0, max_s=60.0)
    assert waited == pytest.approx(pause)


@pytest.mark.parametrize(
    ("now", "roll"),
    [
        # 09:00 UTC is 04:00 in New York in winter, 08:00 UTC in summer.
        (datetime(2026, 12, 1, 8, 59, tzinfo=UTC), datetime(2026, 12, 1, 9, tzinfo=UTC)),
        (datetime(2026, 12, 1, 9, 0, tzinfo=UTC), datetime(2026, 12, 2, 9, tzinfo=UTC)),
        (datetime(2026, 7, 1, 7, 59, tzinfo=UTC), datetime(2026, 7, 1, 8, tzinfo=UTC)),
        # The night the clocks go back.
        (datetime(2026, 10, 31, 20, tzinfo=UTC), datetime(2026, 11, 1, 9, tzinfo=UTC)),
    ],
)
def test_the_session_rolls_over_at_four_in_new_york(now: datetime, roll: datetime) -> None:
    assert next_roll_after(now, time_of_day(4, 0)) == roll
    assert next_roll_after(now.astimezone(ZoneInfo("Asia/Tokyo")), time_of_day(4, 0)) == roll
    assert next_roll_after(now, None) is None


@pytest.mark.parametrize(
    ("at", "trading"),
    [
        # A Wednesday in winter: New York is 5 hours behind.
        (datetime(2026, 11, 25, 8, 59, tzinfo=UTC), False),
        (datetime(2026, 11, 25, 9, 0, tzinfo=UTC), True),
        (datetime(2026, 11, 26, 0, 59, tzinfo=UTC), True),
        (datetime(2026, 11, 26, 1, 0, tzinfo=UTC), False),
        # A Saturday.
        (datetime(2026, 11, 28, 15, 0, tzinfo=UTC), False),
    ],
)
def test_us_stocks_trade_from_four_to_twenty_in_new_york_on_weekdays(
    at: datetime, trading: bool
) -> None:
    assert in_trading_hours(at) is trading


@pytest.mark.parametrize(
    ("day", "begin"),
    [
        (date(2026, 1, 2), datetime(2026, 1, 2, 5, tzinfo=UTC)),
        (date(2026, 7, 2), datetime(2026, 7, 2, 4, tzinfo=UTC)),
    ],
)
def test_a_day_begins_at_midnight_in_new_york(day: date, begin: datetime) -> None:
    assert midnight(day) == begin
