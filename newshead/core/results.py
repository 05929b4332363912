"""Whether alerts were any good: what the price did after a window's alert, or after its highest
point where there was none, and what that was on the whole.

Changes are in percent of the price at that point; nothing is taken off for fees or slippage.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Final, NamedTuple

from newshead.core import rule
from newshead.core.follow_up import SPANS_S
from newshead.core.rule import PricePoint, Rule
from newshead.core.samples import MIN_SIZE, Figures, Quartiles, figures, quartiles

MINUTES: Final = (1, 5, 15, 30)
# What is compared between groups, where it is known of enough windows.
MAIN_MINUTES: Final = 5
# The times of a path, in seconds after the alert.
PATH_S: Final = (0, 10, 20, 30, 45, 60, 90, *range(120, 1801, 60))
# The longest bars go on to the last minute; the others end so many seconds after the window's first
# row.
LONG_BAR_S: Final = max(SPANS_S)
SHORT_BARS_S: Final = min(SPANS_S.values())
# Where one band of prices ends and the next begins, USD.
BANDS: Final = (1.0, 2.0, 5.0, 11.0)

END: Final = "window's end"
BEST: Final = "best on the way"
WORST: Final = "worst on the way"
ALERTED: Final = "alerted"
NOT_ALERTED: Final = "not alerted"
ALL: Final = "all"
# How windows are grouped, by the fields of `Case`.
GROUPINGS: Final = ("rating", "confidence", "priority", "source", "price band")


class Bar(NamedTuple):
    """What was traded in the `seconds` from `begin` (Unix seconds) on, USD."""

    begin: int
    seconds: int
    high: float
    low: float
    close: float

    @property
    def end(self) -> int:
        """When it is over."""
        return self.begin + self.seconds


class Alert(NamedTuple):
    """An alert: Unix seconds, its priority (1 to 3), USD."""

    time: int
    priority: int
    price: float


class Watched(NamedTuple):
    """A window, and all that is known of it.

    Attributes
    ----------
    prices
        Its rows in time order, those of one second in the order they were inserted.
    confidences
        The confidence of each row's rating; empty where it is not known.
    alerts
        In time order.
    source
        Where its newest news came from; empty where that is not known.
    bars
        What IBKR said afterwards, in time order; empty without a follow-up.
    """

    ticker: str
    prices: Sequence[PricePoint]
    confidences: Sequence[str] = ()
    alerts: Sequence[Alert] = ()
    source: str = ""
    bars: Sequence[Bar] = ()


class Case(NamedTuple):
    """A window's first alert, or its highest point, and what came after.

    Attributes
    ----------
    first_s, at_s
        When the window began, and the point's time, Unix seconds.
    price, rise_pct
        The price there, USD, and its change from the window's baseline.
    priority
        The alert's; empty without one.
    followed
        Whether IBKR's bars up to the last minute are known.
    changes_pct
        By END, by each of `after(MINUTES)`, BEST and WORST; what is not known is missing. BEST and
        WORST are up to the last minute, and up to the window's end where it was not followed up.
    path_pct
        At PATH_S; empty where it was not followed up.
    """

    ticker: str
    first_s: int
    at_s: int
    price: float
    rise_pct: float
    alerted: bool
    rating: str
    confidence: str
    priority: str
    source: str
    followed: bool
    changes_pct: dict[str, float]
    path_pct: Sequence[float]

    @property
    def group(self) -> str:
        """ALERTED or NOT_ALERTED."""
        return ALERTED if self.alerted else NOT_ALERTED


class Line(NamedTuple):
    """What the windows of a group say: those that alerted, or did not, and have `value` by
    `grouping`, at one measure of `measures()`."""

    group: str
    grouping: str
    value: str
    measure: str
    figures: Figures


class Step(NamedTuple):
    """Where the paths of windows are, so many seconds after the alert."""

    seconds: int
    changes: Quartiles


def after(minutes: int) -> str:
    """Return a measure's name."""
    return f"after {minutes} min"


def measures() -> tuple[str, ...]:
    """Return what is measured of each window."""
    return (END, *map(after, MINUTES), BEST, WORST)


def case(window: Watched, by: Rule | None = None) -> Case | None:
    """Return what came after a window's point; None where it has no baseline, or no usable price.

    Parameters
    ----------
    by
        The rule that gave the alerts; by default the live one.
    """
    prices = window.prices
    base = rule.baseline(prices, by)
    found = rule.changes(prices, by)
    if not found.rows or not _is_price(base):
        return None
    first = max((by or rule.LIVE).baseline_rows) - 1
    if window.alerts:
        at_s, priority, price = window.alerts[0]
        index = max(0, bisect_right(prices, at_s, key=itemgetter(0)) - 1)
    else:
        highest = max(
            range(len(found.rows)), key=lambda number: (found.rows[number].price, -number)
        )
        index = first + highest
        at_s, price, priority = prices[index].time, prices[index].price, 0
    if not _is_price(price):
        return None
    inside = prices[: first + len(found.rows)]
    trail = _Trail(at_s, price, inside[index + 1 :], window.bars)
    followed = any(bar.seconds >= LONG_BAR_S for bar in window.bars)
    known_until = math.inf if followed else prices[0].time + SHORT_BARS_S * bool(window.bars)
    changes_pct = {
        after(minutes): trail.change_pct(at_s + 60 * minutes)
        for minutes in MINUTES
        if at_s + 60 * minutes <= known_until
    }
    return Case(
        _plain(window.ticker),
        prices[0].time,
        at_s,
        price,
        (price - base) / base * 100,
        bool(window.alerts),
        _plain(prices[index].recommendation),
        _plain(window.confidences[index]) if window.confidences else "",
        str(priority or ""),
        _plain(window.source),
        followed,
        trail.inside_pct() | changes_pct | trail.extremes_pct(),
        [trail.change_pct(at_s + seconds) for seconds in PATH_S] if followed else (),
    )


def cases(windows: Iterable[Watched], by: Rule | None = None) -> tuple[list[Case], int]:
    """Return what came after windows, as `case`, and how many of them could not be judged."""
    judged = [case(window, by) for window in windows]
    found = [each for each in judged if each is not None]
    return found, len(judged) - len(found)


class _Trail:
    """The prices after a point: rows of the window, and bars."""

    def __init__(
        self, at_s: int, price: float, rows: Sequence[PricePoint], bars: Sequence[Bar]
    ) -> None:
        self._at_s, self._price = at_s, price
        usable = [bar for bar in bars if all(map(_is_price, (bar.high, bar.low, bar.close)))]
        self._rows = [row for row in rows if _is_price(row.price)]
        # The last price at or before a time. A bar that began before the point is over after it.
        self._closes = sorted(
            [(row.time, row.price) for row in self._rows]
            + [(bar.end, bar.close) for bar in usable if bar.end > at_s],
            key=itemgetter(0),
        )
        self._highs = [row.price for row in self._rows]
        self._highs += [bar.high for bar in usable if bar.begin >= at_s]
        self._lows = [row.price for row in self._rows]
        self._lows += [bar.low for bar in usable if bar.begin >= at_s]

    def change_pct(self, time_s: int) -> float:
        """Return the change at a time. Without a trade since the point it is none."""
        place = bisect_right(self._closes, time_s, key=itemgetter(0))
        return self._change_pct(self._closes[place - 1][1]) if place else 0.0

    def inside_pct(self) -> dict[str, float]:
        """Return the change at the window's end; nothing without a row since the point."""
        return {END: self._change_pct(self._rows[-1].price)} if self._rows else {}

    def extremes_pct(self) -> dict[str, float]:
        """Return the best and the worst change; nothing without a price since the point."""
        if not self._highs:
            return {}
        return {
            BEST: self._change_pct(max(self._highs)),
            WORST: self._change_pct(min(self._lows)),
        }

    def _change_pct(self, price: float) -> float:
        return (price - self._price) / self._price * 100


def main_measure(cases: Sequence[Case]) -> str:
    """Return the measure by which groups are compared."""
    main = after(MAIN_MINUTES)
    compared = [each for each in cases if each.alerted] or cases
    known = sum(main in each.changes_pct for each in compared)
    return main if _represent(known, len(compared)) else END


def lines(cases: Sequence[Case]) -> list[Line]:
    """Return what windows say: all of them at each measure, and each group at the main one.

    Windows that alerted come first. What no window has is left out.
    """
    main = main_measure(cases)
    found = []
    for group in (ALERTED, NOT_ALERTED):
        inside = [each for each in cases if each.group == group]
        for measure in measures():
            found += _line(group, ALL, ALL, measure, inside)
        for grouping in GROUPINGS:
            values = {value_of(each, grouping): each for each in inside}
            if len(values) == 1 and "" in values:
                continue
            for value in sorted(values, key=lambda value: _rank(grouping, value)):
                same = [each for each in inside if value_of(each, grouping) == value]
                found += _line(group, grouping, value or "unknown", main, same)
    return found


def paths(cases: Iterable[Case]) -> list[Step]:
    """Return the paths of the windows that alerted and were followed up."""
    followed = [each.path_pct for each in cases if each.alerted and each.followed]
    if not followed:
        return []
    return [
        Step(seconds, quartiles(changes))
        for seconds, changes in zip(PATH_S, zip(*followed, strict=True), strict=True)
    ]


def ranked(cases: Sequence[Case]) -> list[Case]:
    """Return the windows that alerted, by the main measure, the best first."""
    main = main_measure(cases)
    known = [each for each in cases if each.alerted and main in each.changes_pct]
    return sorted(known, key=lambda each: (-each.changes_pct[main], each.at_s, each.ticker))


def value_of(each: Case, grouping: str) -> str:
    """Return a window's value by one of GROUPINGS; empty where it is not known."""
    if grouping == "price band":
        return _band(each.price)
    return str(getattr(each, grouping))


def _line(group: str, grouping: str, value: str, measure: str, cases: list[Case]) -> list[Line]:
    if measure in (BEST, WORST):
        # Ways of half an hour and of less than a minute have nothing in common.
        followed = _represent(sum(each.followed for each in cases), len(cases))
        cases = [each for each in cases if each.followed == followed]
    changes = [each.changes_pct[measure] for each in cases if measure in each.changes_pct]
    return [Line(group, grouping, value, measure, figures(changes))] if changes else []


def _represent(known: int, of: int) -> bool:
    """Return whether so many windows stand for all: the first few that are followed up must not
    take the place of the many before them that are not."""
    return known > 0 and (known >= MIN_SIZE or 2 * known >= of)


def _band(price: float) -> str:
    number = bisect_right(BANDS, price)
    if number == len(BANDS):
        return f"from {BANDS[-1]:g} USD"
    if number == 0:
        return f"under {BANDS[0]:g} USD"
    return f"{BANDS[number - 1]:g} to {BANDS[number]:g} USD"


def _rank(grouping: str, value: str) -> tuple[object, ...]:
    if grouping == "price band":
        return (_bands().index(value),)
    return (not value, value)


def _bands() -> list[str]:
    """Return the bands of prices, from low to high."""
    return [_band(0.0), *map(_band, BANDS)]


def _plain(text: str) -> str:
    """Return text of other programs without what a terminal or a spreadsheet would obey."""
    return "".join(c if c.isprintable() else " " for c in text).lstrip(" =+-@")


def _is_price(value: float) -> bool:
    """Return whether a price can be divided by; other programs may write others."""
    return 0 < value < math.inf
