"""What if: the rules that the options list."""

import itertools
import math
from argparse import ArgumentTypeError
from collections.abc import Iterable
from typing import Final

from newshead.core import rule
from newshead.core.rule import Rule

RATINGS: Final = ("BUY", "HOLD", "SELL")
MAX_WINDOW_S: Final = 86_400
MAX_BASELINE_ROW: Final = 1_000


def changes_pct(text: str) -> list[float]:
    """Return the changes of a list such as 3,4.5,5."""
    return [_number(part, "a change in percent above 0", above=True) for part in text.split(",")]


def windows_s(text: str) -> list[int]:
    """Return the windows of a list such as 45,60."""
    wanted = f"a window of 1 to {MAX_WINDOW_S} s"
    return [_whole(part, wanted, MAX_WINDOW_S) for part in text.split(",")]


def prices(text: str) -> tuple[float, float]:
    """Return the lowest price, which alerts, and the highest, which does not, of 0.40:20."""
    low, colon, high = text.partition(":")
    wanted = "a price, in LOW:HIGH"
    found = _number(low, wanted), _number(high if colon else "", wanted)
    if found[0] >= found[1]:
        raise ArgumentTypeError(f"{text!r} has no price in it: LOW must be below HIGH")
    return found


def ratings(text: str) -> tuple[str, ...]:
    """Return the ratings of a set such as BUY,HOLD."""
    parts = {part.strip() for part in text.split(",")}
    for part in sorted(parts - set(RATINGS)):
        raise ArgumentTypeError(f"{part!r} is none of {', '.join(RATINGS)}")
    return tuple(sorted(parts))


def baseline_rows(text: str) -> tuple[int, ...]:
    """Return the numbers of the rows of a set such as 2,3."""
    wanted = f"the number of a row from 1 to {MAX_BASELINE_ROW}"
    return tuple(sorted({_whole(part, wanted, MAX_BASELINE_ROW) for part in text.split(",")}))


def grid(
    changes: Iterable[float],
    windows: Iterable[int],
    ranges: Iterable[tuple[float, float]],
    rated: Iterable[tuple[str, ...]],
    baselines: Iterable[tuple[int, ...]],
) -> list[Rule]:
    """Return the product of all that is listed, each rule once; what is not listed is as live."""
    live = rule.LIVE
    found = [
        Rule(change_pct, window_s, lowest, highest, rated_as, rows)
        for change_pct, window_s, (lowest, highest), rated_as, rows in itertools.product(
            list(changes) or [live.change_pct],
            list(windows) or [live.window_s],
            list(ranges) or [(live.lowest, live.highest)],
            list(rated) or [live.ratings],
            list(baselines) or [live.baseline_rows],
        )
    ]
    return list(dict.fromkeys(found))


def _number(text: str, wanted: str, *, above: bool = False) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (0 <= value < math.inf) or (above and not value):
        raise ArgumentTypeError(f"{text!r} is not {wanted}")
    return value


def _whole(text: str, wanted: str, most: int) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= most):
        raise ArgumentTypeError(f"{text!r} is not {wanted}")
    return int(text)
