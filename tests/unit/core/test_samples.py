"""What a sample says, and when it says too little."""

import random

import pytest

from newshead.core.samples import MIN_SIZE, figures, quartiles


def test_the_figures_of_a_sample_are_those_of_its_changes() -> None:
    found = figures([-1.0, 0.0, 2.0, 3.0])
    assert (found.size, found.median, found.mean, found.above_zero) == (4, 1.0, 1.0, 0.5)
    assert found.spread == pytest.approx(1.826, abs=0.001)


def test_nearly_all_intervals_hold_what_the_changes_were_drawn_from() -> None:
    chance = random.Random(3)
    held = [0, 0, 0]
    for _ in range(60):
        found = figures([chance.gauss(2.0, 4.0) for _ in range(80)])
        # Normally 0.691 of them are above zero.
        for number, (truth, interval) in enumerate(
            [
                (2.0, found.median_interval),
                (0.691, found.above_zero_interval),
                (2.0, found.mean_interval),
            ]
        ):
            held[number] += interval.low <= truth <= interval.high
    # 57 of 60 are 95 %.
    assert all(52 <= number <= 60 for number in held)


def test_intervals_are_the_same_each_time_and_narrow_with_the_number_of_changes() -> None:
    chance = random.Random(3)
    changes = [chance.gauss(2.0, 4.0) for _ in range(200)]
    found = figures(changes)
    assert found == figures(changes)
    # 1.96 standard errors of a mean on either side are 1.1 in all.
    assert found.mean_interval.width == pytest.approx(1.1, rel=0.25)
    assert found.mean_interval.width < figures(changes[:50]).mean_interval.width
    assert found.enough
    # Of many only some are drawn.
    many = figures([chance.gauss(2.0, 4.0) for _ in range(5000)])
    assert many.mean_interval.width == pytest.approx(1.96 * 2 * 4.0 / 5000**0.5, rel=0.25)
    assert many.median_interval.low < 2.0 < many.median_interval.high


def test_a_share_near_all_of_few_changes_is_not_taken_for_certain() -> None:
    chance = random.Random(3)
    held = 0
    for _ in range(100):
        interval = figures(
            [1.0 if chance.random() < 0.95 else -1.0 for _ in range(MIN_SIZE)]
        ).above_zero_interval
        held += interval.low <= 0.95 <= interval.high
    assert held >= 90
    # Of twenty that all rose: Wilson's interval.
    assert figures([1.0] * MIN_SIZE).above_zero_interval == pytest.approx((0.839, 1.0), abs=0.001)
    assert figures([-1.0] * MIN_SIZE).above_zero_interval == pytest.approx((0.0, 0.161), abs=0.001)


@pytest.mark.parametrize(
    "changes",
    [
        # Too few, however alike.
        [1.0] * (MIN_SIZE - 1),
        # The median may be at either end.
        [-10.0, 10.0] * 25,
        # About as many above zero as below: with so few, it may be a quarter or three quarters.
        [-0.1, 0.1] * 10,
    ],
)
def test_few_changes_or_wide_intervals_say_nothing(changes: list[float]) -> None:
    assert not figures(changes).enough
    assert figures([1.0] * MIN_SIZE).enough


def test_a_single_change_has_no_spread_and_is_its_own_quartiles() -> None:
    assert (figures([3.0]).median, figures([3.0]).spread) == (3.0, 0.0)
    assert quartiles([3.0]) == (1, 3.0, 3.0, 3.0)
    assert quartiles([0.0, 1.0, 2.0, 3.0, 4.0]) == (5, 1.0, 2.0, 3.0)
