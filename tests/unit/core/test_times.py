"""The session's roll and the pauses between attempts, without a clock."""

import pytest

from newshead.core.times import retry_pause_s


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
