"""The alert rule, from a ticker's stored prices to its alerts and what came of its window.

A row qualifies for an alert when all hold: it is the third or a later one of the ticker's
session, its price is 5 % or more above the lower of the second and the third, it is not over
60 seconds from the first, its price is in the range, and it was rated BUY itself.
"""

import math
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

WINDOW_S: Final = 60
ALERT_CHANGE_PCT: Final = 5.0
# Alerts are for prices from the first (included) to the second (excluded), USD.
ALERT_PRICES: Final = (0.40, 11.0)
BUY: Final = "BUY"
# The first row may be an old trade, which TWS sends on a subscription.
FIRST_JUDGED_ROW: Final = 3
STRONG_SCORE: Final = 4


class PricePoint(NamedTuple):
    """A stored price row: Unix seconds, USD, shares, and the rating it was stored with."""

    time: int
    price: float
    volume: int
    recommendation: str


class Judged(NamedTuple):
    """A price row as the rule sees it; `change_pct` is 0 before the third row.

    `counts`: it is inside the window and has a baseline. `rises`: it counts and has
    reached the threshold.
    """

    number: int
    time: int
    price: float
    volume: int
    change_pct: float
    seconds_elapsed: int
    counts: bool
    rises: bool
    in_range: bool
    rated_buy: bool

    @property
    def qualifies(self) -> bool:
        """Whether the whole rule holds."""
        return self.rises and self.in_range and self.rated_buy

    @property
    def held_back(self) -> bool:
        """Whether only the rating is in the way."""
        return self.rises and self.in_range and not self.rated_buy


class Rise(NamedTuple):
    """A row at or above the alert threshold, not alerted yet.

    `qualifies`: the alert rule holds. `held_back`: only the rating is in its way.
    `alert` is the priority, 1 (strong) to 3 (no score).
    """

    ticker: str
    timestamp: datetime
    price: float
    change_pct: float
    seconds_elapsed: int
    qualifies: bool
    held_back: bool
    alert: int


class Outcome(NamedTuple):
    """What came of a ticker's window: counts of its rows, and its best change in percent."""

    alerts: int
    rows: int
    judged: int
    best_change_pct: float
    rises: int
    rises_in_range: int


def baseline(prices: Sequence[PricePoint]) -> float:
    """Return the lower of the second and the third price in USD; 0 before the third."""
    if len(prices) < FIRST_JUDGED_ROW:
        return 0.0
    return min(prices[1].price, prices[2].price)


def judge(prices: Sequence[PricePoint]) -> list[Judged]:
    """Judge a ticker's rows.

    Parameters
    ----------
    prices
        All of its session in time order, those of one second in the order they were inserted.
    """
    base = baseline(prices)
    lowest, highest = ALERT_PRICES
    judged = []
    for number, (time, price, volume, recommendation) in enumerate(prices, 1):
        elapsed_s = time - prices[0].time
        has_baseline = number >= FIRST_JUDGED_ROW
        change_pct = _change_pct(price, base) if has_baseline else 0.0
        counts = has_baseline and elapsed_s <= WINDOW_S
        judged.append(
            Judged(
                number,
                time,
                price,
                volume,
                change_pct,
                elapsed_s,
                counts,
                rises=counts and change_pct >= ALERT_CHANGE_PCT,
                in_range=lowest <= price < highest,
                rated_buy=recommendation == BUY,
            )
        )
    return judged


def rises(
    ticker: str, judged: Sequence[Judged], alerted: Collection[int], score: float | None
) -> list[Rise]:
    """Return the rows that reached the threshold and have no alert yet, in order.

    Parameters
    ----------
    alerted
        The times (Unix seconds) of the rows that have their alert.
    score
        The ticker's newest strength score; None if it has none.
    """
    return [
        Rise(
            ticker,
            datetime.fromtimestamp(row.time, UTC),
            row.price,
            row.change_pct,
            row.seconds_elapsed,
            row.qualifies,
            row.held_back,
            priority(score),
        )
        for row in judged
        if row.rises and row.time not in alerted
    ]


def priority(score: float | None) -> int:
    """Return an alert's priority: 1 for a strong score, 2 for a lower one, 3 for none."""
    if score is None:
        return 3
    return 1 if score >= STRONG_SCORE else 2


def outcome(judged: Sequence[Judged], alerts: int) -> Outcome:
    """Return what came of a window with so many alerts."""
    counting = [row for row in judged if row.counts]
    changes = [row.change_pct for row in counting if not math.isnan(row.change_pct)]
    return Outcome(
        alerts,
        len(judged),
        len(counting),
        max(changes, default=0.0),
        sum(row.rises for row in counting),
        sum(row.rises and row.in_range for row in counting),
    )


def describe(result: Outcome | None) -> str:
    """Return what came of a window, in a trader's words; None stands for a ticker without rows."""
    if result is None:
        return "no ticks"
    best = f"best change {result.best_change_pct:+.1f} % of {ALERT_CHANGE_PCT:.0f} %"
    if result.alerts:
        return f"{result.alerts} alert{'s' if result.alerts > 1 else ''}, {best}"
    if not result.judged:
        return f"no alert, only {result.rows} prices"
    if not result.rises:
        return f"no alert, {best}"
    if not result.rises_in_range:
        return f"no alert, {_outside()}, {best}"
    return f"no alert, not rated BUY, {best}"


def describe_open(result: Outcome, due: int, recommendation: str) -> str:
    """Return why a window that is open has or has not alerted, in a trader's words.

    Parameters
    ----------
    due
        The rows that qualify.
    recommendation
        The ticker's rating now.
    """
    if result.alerts:
        return "alerted once" if result.alerts == 1 else f"alerted {result.alerts} times"
    if not result.judged:
        return "waiting for the third price"
    if not result.rises:
        return f"{result.best_change_pct:+.1f} % of {ALERT_CHANGE_PCT:.0f} %"
    if not result.rises_in_range:
        return _outside()
    if due:
        return "the alert is on its way"
    if recommendation == BUY:
        return "held back: it rose before it was rated BUY"
    return f"held back: {recommendation}"


def _outside() -> str:
    lowest, highest = ALERT_PRICES
    return f"price outside {lowest:.2f} to {highest:.0f}"


def _change_pct(price: float, base: float) -> float:
    # Other programs may write prices of 0; they must not stop the others' alerts.
    if base == 0:
        return math.copysign(math.inf, price) if price else math.nan
    return (price - base) / base * 100
