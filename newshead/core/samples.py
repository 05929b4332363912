"""What a sample of changes says, and how much of that is chance."""

import random
from collections.abc import Sequence
from math import ceil, fsum
from statistics import median, quantiles, stdev
from typing import Final, NamedTuple

# Samples drawn from the sample, with the same seed each time: the same changes, the same answer.
RESAMPLES: Final = 400
SEED: Final = 1
# Of what is drawn, so much lies outside the interval on either side.
TAIL: Final = 0.025
# With fewer changes, or wider intervals, nothing is said.
MIN_SIZE: Final = 20
MAX_MEDIAN_WIDTH_PCT: Final = 5.0
MAX_SHARE_WIDTH: Final = 0.35


class Interval(NamedTuple):
    """Where 95 % of the samples drawn from a sample lie."""

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
    drawn = [chance.choices(changes, k=size) for _ in range(RESAMPLES)]
    return Figures(
        size,
        median(changes),
        _interval([median(sample) for sample in drawn]),
        _above_zero(changes),
        _interval([_above_zero(sample) for sample in drawn]),
        fsum(changes) / size,
        _interval([fsum(sample) / size for sample in drawn]),
        stdev(changes) if size > 1 else 0.0,
    )


def quartiles(changes: Sequence[float]) -> Quartiles:
    """Return the quartiles of a sample of at least one change."""
    if len(changes) == 1:
        return Quartiles(1, *changes, *changes, *changes)
    return Quartiles(len(changes), *quantiles(changes, method="inclusive"))


def _above_zero(changes: Sequence[float]) -> float:
    return sum(change > 0 for change in changes) / len(changes)


def _interval(values: Sequence[float]) -> Interval:
    ordered = sorted(values)
    outside = ceil(len(ordered) * TAIL)
    return Interval(ordered[outside], ordered[-1 - outside])
