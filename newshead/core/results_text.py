"""Results as text for a terminal and as rows of CSV files; the method and its limits, in words."""

import math
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from newshead.core import results
from newshead.core.results import ALERTED, ALL, GROUPINGS, NOT_ALERTED, Case, Line
from newshead.core.samples import MAX_MEDIAN_WIDTH_PCT, MAX_SHARE_WIDTH, MIN_SIZE, Figures, Interval

WIDTH: Final = 80
LABEL_WIDTH: Final = 16
# So many of the best and of the worst are listed.
LISTED: Final = 5

TOO_FEW: Final = "too few to say"
NOTHING: Final = "No window is stored for this."
METHOD: Final = (
    "A change is from the price of a window's first alert, or of its highest point where there was "
    "none, in percent. In brackets: 95 % of the samples drawn from this one lie there; for a share "
    "it is Wilson's interval.",
    "Alerts of one day or of one piece of news are not independent: brackets are too narrow then.",
    "No fees and no slippage are taken off: a real order fills later than the alert, and pays the "
    "spread.",
    "A price seen is a sample: the newest trade of two seconds, later the end of a bar.",
    "A stock that was halted or no longer traded keeps its last price: nobody could sell at it.",
    "Survivors: windows without prices are missing, and after the window's end so are those for "
    "which IBKR had no bars.",
    "A highest point is known only afterwards, and from there most prices fall: windows without an "
    "alert look worse than the alerts by that alone.",
    f'"{TOO_FEW}": fewer than {MIN_SIZE} windows, or a median known to no better than '
    f"{MAX_MEDIAN_WIDTH_PCT:g} points, or a share to no better than {100 * MAX_SHARE_WIDTH:.0f}. "
    "Of many groups one looks good by chance.",
)

_TITLES: Final = {ALERTED: "Windows that alerted", NOT_ALERTED: "Windows without an alert"}
_HEADER: Final = (
    f"{'':{LABEL_WIDTH}}{'n':>4}{'median %':>20}{'above 0, %':>14}{'mean %':>19}{'spread':>7}"
)

GROUPS_HEADER: Final = (
    *("windows", "grouping", "value", "measure", "n", "enough"),
    *("median_pct", "median_low", "median_high"),
    *("above_zero", "above_zero_low", "above_zero_high"),
    *("mean_pct", "mean_low", "mean_high", "spread"),
)
PATHS_HEADER: Final = ("seconds", "n", "lower_quartile_pct", "median_pct", "upper_quartile_pct")
WINDOWS_HEADER: Final = (
    *("ticker", "first_row", "at", "windows", "price", "rise_pct"),
    *(grouping.replace(" ", "_") for grouping in GROUPINGS),
    "followed_up",
    *(f"{measure} %" for measure in results.measures()),
)

Row = Sequence[object]


def groups_rows(lines: Iterable[Line]) -> list[Row]:
    """Return a CSV file of what groups say, header included."""
    return [GROUPS_HEADER, *(_groups_row(line) for line in lines)]


def paths_rows(cases: Iterable[Case]) -> list[Row]:
    """Return a CSV file of the paths since the alert, header included."""
    return [PATHS_HEADER, *((step.seconds, *step.changes) for step in results.paths(cases))]


def windows_rows(cases: Iterable[Case]) -> list[Row]:
    """Return a CSV file of all windows in time order, header included."""
    ordered = sorted(cases, key=lambda each: (each.first_s, each.ticker))
    return [WINDOWS_HEADER, *map(_windows_row, ordered)]


# The CSV files, by their names.
FILES: Final[dict[str, Callable[[Sequence[Case]], list[Row]]]] = {
    "groups": lambda cases: groups_rows(results.lines(cases)),
    "paths": paths_rows,
    "windows": windows_rows,
}


def summary(cases: Sequence[Case], unusable: int) -> str:
    """Return in one sentence what is told of; `unusable` windows could not be judged."""
    alerted = sum(each.alerted for each in cases)
    followed = sum(each.followed for each in cases)
    windows = f"{len(cases)} window{'s' * (len(cases) != 1)}"
    told = f"{windows}, {alerted} of them alerted, {followed} followed up"
    return f"{told}; {unusable} had too few prices to judge." if unusable else f"{told}."


def text(cases: Sequence[Case], unusable: int) -> str:
    """Return results for a terminal, in lines of at most WIDTH characters."""
    if not cases:
        return NOTHING
    blocks = [textwrap.fill(summary(cases, unusable), WIDTH)]
    lines = results.lines(cases)
    blocks += [
        "\n".join(_section(group, [line for line in lines if line.group == group], cases))
        for group in (ALERTED, NOT_ALERTED)
        if any(line.group == group for line in lines)
    ]
    if ranked := results.ranked(cases):
        blocks.append("\n".join(_ranking(ranked, results.main_measure(cases))))
    return "\n\n".join(blocks)


def method() -> str:
    """Return the method and its limits for a terminal."""
    return "\n".join(
        textwrap.fill(sentence, WIDTH, initial_indent="- ", subsequent_indent="  ")
        for sentence in METHOD
    )


def _section(group: str, lines: Sequence[Line], cases: Sequence[Case]) -> Iterator[str]:
    yield _TITLES[group]
    yield _HEADER
    yield from (_line(line.measure, line.figures) for line in lines if line.grouping == ALL)
    for grouping in GROUPINGS:
        inside = [line for line in lines if line.grouping == grouping]
        if inside:
            yield f"By {grouping}, {results.main_measure(cases)}:"
        yield from (_line(f"  {line.value}", line.figures) for line in inside)


def _line(label: str, found: Figures) -> str:
    begin = f"{label:{LABEL_WIDTH}.{LABEL_WIDTH}}{found.size:4}"
    if not found.enough:
        return f"{begin}  {TOO_FEW}"
    return (
        f"{begin}{_with(found.median, found.median_interval):>20}"
        f"{_share(found):>14}{_with(found.mean, found.mean_interval):>20}{_points(found.spread):>6}"
    )


def _ranking(ranked: Sequence[Case], measure: str) -> Iterator[str]:
    best, worst = ranked[:LISTED], ranked[LISTED:][: -LISTED - 1 : -1]
    for title, found in (("Best", best), ("Worst", worst)):
        if found:
            yield f"{title}, {measure}:"
        for each in found:
            at = datetime.fromtimestamp(each.at_s, UTC)
            change = _signed(each.changes_pct[measure])
            yield f"  {each.ticker:8.8} {at:%Y-%m-%d %H:%M:%S} UTC {each.price:10.4f} {change:>7} %"


def _with(value: float, interval: Interval) -> str:
    return f"{_signed(value)} ({_signed(interval.low)},{_signed(interval.high)})"


def _share(found: Figures) -> str:
    low, high = found.above_zero_interval
    return f"{found.above_zero * 100:.0f} ({low * 100:.0f},{high * 100:.0f})"


def _signed(value: float) -> str:
    return f"{'+' if value > 0 else ''}{_points(value)}"


def _points(value: float) -> str:
    """Return a number of percent in at most five characters, as far as prices rise."""
    text = f"{value:.0f}" if abs(value) >= 99.95 else f"{value:.1f}"
    return "0.0" if text == "-0.0" else text


def _groups_row(line: Line) -> Row:
    *names, found = line
    numbers = [
        number for value in found for number in (value if isinstance(value, Interval) else (value,))
    ]
    size, *others = numbers
    return (*names, size, int(found.enough), *(round(number, 4) for number in others))


def _windows_row(each: Case) -> Row:
    return (
        each.ticker,
        *(datetime.fromtimestamp(at, UTC).isoformat() for at in (each.first_s, each.at_s)),
        each.group,
        each.price,
        round(each.rise_pct, 4),
        *(results.value_of(each, grouping) for grouping in GROUPINGS),
        int(each.followed),
        *(_known(each.changes_pct.get(measure, math.nan)) for measure in results.measures()),
    )


def _known(value: float) -> object:
    return "" if math.isnan(value) else round(value, 4)
