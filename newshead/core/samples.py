"""What a sample of changes says, and how much of that is chance."""

import random
from collections.abc import Callable, Sequence
from math import ceil, fsum, sqrt
from statistics import median, quantiles, stdev
from typing import Final, NamedTuple

# Samples drawn from the sample, with the same seed each time: the same changes, the same answer.
RESAMPLES: Final = 400
SEED: Final = 1
# Of more changes only so many are drawn, lest a month takes minutes; the interval is narrowed by as
# much as the rest would narrow it.
MAX_DRAWN: Final = 300
# Of what is drawn, so much lies outside the interval on either side; and the same of a normal
# distribution, in standard deviations.
TAIL: Final = 0.025
TAIL_DEVIATIONS: Final = 1.96
# With fewer changes, or wider intervals, nothing is said.
MIN_SIZE: Final = 20
MAX_MEDIAN_WIDTH_PCT: Final = 5.0
MAX_SHARE_WIDTH: Final = 0.35


class Interval(NamedTuple):
    """Where a figure is, but for one sample in twenty."""

    low: float
    high: float

    @property
    def width(self) -> float:
        """The distance of its ends."""
        return self.high - self.low


class Figures(NamedTuple):
    """What a sample of changes in percent says.

    `above_zero` is the share of the changes that are above zero, 0 to 1; `spread` is their standard
    deviation, 0 for a single one. An interval follows each of the first three figures.
    """

    size: int
    median: float
    median_interval: Interval
    above_zero: float
    above_zero_interval: Interval
    mean: float
    mean_interval: Interval
    spread: float

    @property
    def enough(self) -> bool:
        """Whether there are enough changes, and alike enough, to say anything."""
        return (
            self.size >= MIN_SIZE
            and self.median_interval.width <= MAX_MEDIAN_WIDTH_PCT
            and self.above_zero_interval.width <= MAX_SHARE_WIDTH
        )


class Quartiles(NamedTuple):
    """A quarter of a sample is below `lower`, a quarter above `upper`."""

    size: int
    lower: float
    median: float
    upper: float


def figures(changes: Sequence[float]) -> Figures:
    """Return what a sample of at least one change, all of them finite, says."""
    chance = random.Random(SEED)
    size = len(changes)
    above_zero = sum(change > 0 for change in changes) / size
    drawn = [chance.choices(changes, k=min(size, MAX_DRAWN)) for _ in range(RESAMPLES)]
    return Figures(
        size,
        *_with_interval(median, changes, drawn),
        above_zero,
        _share_interval(above_zero, size),
        *_with_interval(_mean, changes, drawn),
        stdev(changes) if size > 1 else 0.0,
    )


def quartiles(changes: Sequence[float]) -> Quartiles:
    """Return the quartiles of a sample of at least one change."""
    if len(changes) == 1:
        return Quartiles(1, *changes, *changes, *changes)
    return Quartiles(len(changes), *quantiles(changes, method="inclusive"))


def _share_interval(share: float, size: int) -> Interval:
    """Return Wilson's interval. Samples drawn from changes that are all above zero are so too, and
    would make a certainty of twenty."""
    squared = TAIL_DEVIATIONS**2 / size
    middle = share + squared / 2
    half = TAIL_DEVIATIONS * sqrt((share * (1 - share) + squared / 4) / size)
    return Interval(
        max(0.0, (middle - half) / (1 + squared)), min(1.0, (middle + half) / (1 + squared))
    )


def _mean(changes: Sequence[float]) -> float:
    return fsum(changes) / len(changes)


def _with_interval(
    of: Callable[[Sequence[float]], float],
    changes: Sequence[float],
    drawn: Sequence[Sequence[float]],
) -> tuple[float, Interval]:
    value = of(changes)
    ordered = sorted(map(of, drawn))
    outside = ceil(len(ordered) * TAIL)
    narrower = sqrt(len(drawn[0]) / len(changes))
    low, high = ordered[outside], ordered[-1 - outside]
    return value, Interval(value + (low - value) * narrower, value + (high - value) * narrower)
