"""What three clocks tell together."""

import pytest

from newshead.core.clocks import Clocks, ClockWatch


def look(*passed: float) -> list[str]:
    """What is told when so much has passed on each clock since the last look."""
    watch = ClockWatch(1.0)
    start = Clocks(1000.0, 500.0, 300.0)
    assert watch.look(start) == []
    now = Clocks(*(old + more for old, more in zip(start, passed, strict=True)))
    told = [str(each) for each in watch.look(now)]
    again = Clocks(*(clock + 1 for clock in now))
    assert watch.look(again) == [], "it is told once"
    return told


@pytest.mark.parametrize(
    ("passed", "told"),
    [
        ((1.0, 1.0, 1.0), []),
        ((1.9, 1.0, 1.0), []),
        ((5.5, 5.5, 5.5), []),
        ((31.0, 1.0, 1.0), ["the clock was set forward by 30 s"]),
        ((-3.0, 1.0, 1.0), ["the clock was set back by 4 s"]),
        ((3601.0, 3601.0, 1.0), ["the machine slept for 3600 s"]),
        ((13.0, 13.0, 13.0), ["newshead stood still for 12 s"]),
        (
            (50.0, 21.0, 13.0),
            [
                "the clock was set forward by 29 s",
                "the machine slept for 8 s",
                "newshead stood still for 12 s",
            ],
        ),
    ],
)
def test_what_happened_to_the_time_is_told_with_its_length(
    passed: tuple[float, ...], told: list[str]
) -> None:
    assert look(*passed) == told
