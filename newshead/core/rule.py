"""The alert rule, from a ticker's stored prices to its alerts and what came of its window.

A row qualifies for an alert when all hold: it is the third or a later one of the ticker's
session, its price is 5 % or more above the lower of the second and the third, it is not over
60 seconds from the first, its price is in the range, and it was rated BUY itself.
"""

import math
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from operator import itemgetter
from typing import Final, NamedTuple

WINDOW_S: Final = 60
ALERT_CHANGE_PCT: Final = 5.0
STRONG_SCORE: Final = 4

_TIME: Final = itemgetter(0)


class Rule(NamedTuple):
    """The alert rule's thresholds.

    Attributes
    ----------
    change_pct
        The rise above the baseline, in percent, from which a row may alert.
    window_s
        The seconds from the first row in which it may.
    lowest, highest
        Alerts are for prices from the first (included) to the second (excluded), USD.
    ratings
        The recommendations of which a row needs one.
    baseline_rows
        The numbers, from 1, of the rows of which the lowest price is the baseline. Rows are judged
        from the last of them on. The first row may be an old trade, which TWS sends on a
        subscription.
    """

    change_pct: float = ALERT_CHANGE_PCT
    window_s: int = WINDOW_S
    lowest: float = 0.40
    highest: float = 11.0
    ratings: tuple[str, ...] = ("BUY",)
    baseline_rows: tuple[int, ...] = (2, 3)


# What newshead alerts by, and what the functions below mean by None.
LIVE: Final = Rule()


class PricePoint(NamedTuple):
    """A stored price row: Unix seconds, USD, shares, and the rating it was stored with."""

    time: int
    price: float
    volume: int
    recommendation: str


class Judged(NamedTuple):
    """A price row as the rule sees it; `change_pct` is 0 before there is a baseline.

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
    well_rated: bool

    @property
    def qualifies(self) -> bool:
        """Whether the whole rule holds."""
        return self.rises and self.in_range and self.well_rated

    @property
    def held_back(self) -> bool:
        """Whether only the rating is in the way."""
        return self.rises and self.in_range and not self.well_rated


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


class Changes(NamedTuple):
    """What a window's rows are from its baseline: the same for all rules with one `window_s` and
    `baseline_rows`.

    `total` counts all rows; `rows` are those inside the window that have a baseline, with
    `changes_pct` in percent, of which `best_pct` is the best, or 0.
    """

    total: int
    rows: Sequence[PricePoint]
    changes_pct: Sequence[float]
    best_pct: float


class Outcome(NamedTuple):
    """What came of a ticker's window: counts of its rows, and its best change in percent.

    `due` counts the rows that meet the whole rule.
    """

    alerts: int = 0
    rows: int = 0
    judged: int = 0
    best_change_pct: float = 0.0
    rises: int = 0
    rises_in_range: int = 0
    due: int = 0


def inside(first_s: float, at_s: float, by: Rule | None = None) -> bool:
    """Return whether the window of a ticker with its first row at `first_s` is open at `at_s`, both
    in Unix seconds."""
    return at_s - first_s <= (by or LIVE).window_s


def windows(times: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield where each window among a ticker's stored rows begins and ends, by the rows' times.

    The tables do not say which session a row is of. Rows are of one window up to its end, and after
    that, where a monitor could not ask the database for it, as long as they follow each other.
    """
    begin = 0
    while begin < len(times):
        end = bisect_right(times, times[begin] + LIVE.window_s, begin)
        while end < len(times) and inside(times[end - 1], times[end]):
            end += 1
        yield begin, end
        begin = end


def baseline(prices: Sequence[PricePoint], by: Rule | None = None) -> float:
    """Return the lowest price in USD of the rule's baseline rows; 0 before the last of them."""
    rows = (by or LIVE).baseline_rows
    if len(prices) < max(rows):
        return 0.0
    return min([prices[number - 1].price for number in rows])


def judge(prices: Sequence[PricePoint], by: Rule | None = None) -> list[Judged]:
    """Judge a ticker's rows.

    Parameters
    ----------
    prices
        All of its session in time order, those of one second in the order they were inserted.
    """
    rule = by or LIVE
    change_pct, _, lowest, highest, ratings, _ = rule
    counting = _counting(prices, rule)
    changes = all_changes_pct(prices, rule)
    judged = []
    first_s = prices[0].time if prices else 0
    for number, ((time, price, volume, recommendation), change) in enumerate(
        zip(prices, changes, strict=True), 1
    ):
        counts = counting.start < number <= counting.stop
        judged.append(
            Judged(
                number,
                time,
                price,
                volume,
                change,
                time - first_s,
                counts,
                counts and change >= change_pct,
                lowest <= price < highest,
                recommendation in ratings,
            )
        )
    return judged


def all_changes_pct(prices: Sequence[PricePoint], by: Rule | None = None) -> list[float]:
    """Return the change of each of a ticker's rows from the baseline in percent; 0 before there is
    one."""
    rule = by or LIVE
    first = min(max(rule.baseline_rows) - 1, len(prices))
    return [0.0] * first + _changes_pct(prices[first:], baseline(prices, rule))


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


def changes(prices: Sequence[PricePoint], by: Rule | None = None) -> Changes:
    """Return what a ticker's rows, see `judge`, are from its baseline.

    It takes a small part of the time that judging each row takes.
    """
    rule = by or LIVE
    counting = _counting(prices, rule)
    rows = prices[counting.start : counting.stop]
    changes_pct = _changes_pct(rows, baseline(prices, rule))
    best = max(changes_pct, default=0.0)
    if math.isnan(best):
        # It is the first one. Others are never the greatest.
        best = max((change for change in changes_pct if not math.isnan(change)), default=0.0)
    return Changes(len(prices), rows, changes_pct, best)


def outcome(found: Changes, alerts: int, by: Rule | None = None) -> Outcome:
    """Return what came of a window with these changes and so many alerts."""
    rule = by or LIVE
    total, rows, changes_pct, best_pct = found
    if best_pct < rule.change_pct:
        return Outcome(alerts, total, len(rows), best_pct)
    pairs = zip(rows, changes_pct, strict=True)
    risen = [row for row, change in pairs if change >= rule.change_pct]
    in_range = [row for row in risen if rule.lowest <= row.price < rule.highest]
    due = sum(row.recommendation in rule.ratings for row in in_range)
    return Outcome(alerts, total, len(rows), best_pct, len(risen), len(in_range), due)


def describe(result: Outcome | None, by: Rule | None = None) -> str:
    """Return what came of a window, in a trader's words; None stands for a ticker without rows."""
    rule = by or LIVE
    if result is None:
        return "no ticks"
    best = f"best change {percent(result.best_change_pct, rule)} of {rule.change_pct:g} %"
    if result.alerts:
        return f"{result.alerts} alert{'s' if result.alerts > 1 else ''}, {best}"
    if not result.judged:
        return f"no alert, only {result.rows} prices"
    if not result.rises:
        return f"no alert, {best}"
    if not result.rises_in_range:
        return f"no alert, {_outside(rule)}, {best}"
    return f"no alert, not rated {' or '.join(rule.ratings)}, {best}"


def describe_open(result: Outcome, recommendation: str, change_pct: float | None = None) -> str:
    """Return why a window that is open has or has not alerted, in a trader's words.

    Parameters
    ----------
    recommendation
        The ticker's rating now.
    change_pct
        The newest price's change from the baseline.
    """
    if result.alerts:
        return "alerted once" if result.alerts == 1 else f"alerted {result.alerts} times"
    if not result.judged:
        return "waiting for the third price"
    if not result.rises:
        best = f"{percent(result.best_change_pct)} of {LIVE.change_pct:g} %"
        if change_pct is None or percent(change_pct) == percent(result.best_change_pct):
            return best
        return f"now {percent(change_pct)}, best {best}"
    if not result.rises_in_range:
        return _outside(LIVE)
    if result.due:
        return "the alert is on its way"
    if recommendation in LIVE.ratings:
        return "held back: it rose before it was rated BUY"
    return f"held back: {recommendation}"


def percent(change_pct: float, by: Rule | None = None) -> str:
    """Return a change with one decimal, or with two where one would put it on the wrong side of the
    rule's threshold."""
    threshold = (by or LIVE).change_pct
    for decimals in (1, 2):
        shown = round(change_pct, decimals)
        if (shown >= threshold) == (change_pct >= threshold):
            return f"{shown:+z.{decimals}f} %"
    # Nearer to it than can be shown.
    return f"{threshold - 0.01 if change_pct < threshold else threshold:+.2f} %"


def _outside(rule: Rule) -> str:
    return f"price outside {_usd(rule.lowest, 2)} to {_usd(rule.highest, 0)}"


def _usd(price: float, decimals: int) -> str:
    """Return a price with at least so many decimals."""
    text = f"{price:.{decimals}f}"
    return text if float(text) == price else f"{price:g}"


def _counting(prices: Sequence[PricePoint], rule: Rule) -> range:
    """Return the indexes of the rows that have a baseline and are inside the window."""
    first = max(rule.baseline_rows) - 1
    if first >= len(prices):
        return range(first, first)
    end_s = prices[0].time + rule.window_s
    return range(first, max(first, bisect_right(prices, end_s, key=_TIME)))


def _changes_pct(prices: Sequence[PricePoint], base: float) -> list[float]:
    if base == 0:
        # Other programs may write prices of 0; they must not stop the others' alerts.
        return [math.copysign(math.inf, row.price) if row.price else math.nan for row in prices]
    return [(row.price - base) / base * 100 for row in prices]
