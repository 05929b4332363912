"""What three clocks tell together: the wall clock was set, the machine slept, the loop stood still.

No clock: the caller hands in what they show.
"""

from enum import Enum
from typing import Final, NamedTuple

# Clocks that are read one after the other, and corrected in small steps, differ by less.
STEP_S: Final = 1.0
# A loop that comes so much too late is told.
STALL_S: Final = 5.0


class Clocks(NamedTuple):
    """What the clocks show, in seconds: the wall clock, one that runs on while the machine sleeps
    and one that does not. Where a machine has none of the second kind, the third stands for it."""

    wall: float
    elapsed: float
    awake: float


class Kind(Enum):
    """What happened."""

    SET_FORWARD = "the clock was set forward by {:.0f} s"
    SET_BACK = "the clock was set back by {:.0f} s"
    SLEPT = "the machine slept for {:.0f} s"
    STOOD_STILL = "newshead stood still for {:.0f} s"


class Disturbance(NamedTuple):
    """Something that happened to the time, and its length."""

    kind: Kind
    seconds: float

    def __str__(self) -> str:
        return self.kind.value.format(self.seconds)


class ClockWatch:
    """Compares the clocks each time with the last time."""

    def __init__(self, every_s: float) -> None:
        """
        Parameters
        ----------
        every_s
            The pause between two looks.
        """
        self._every_s = every_s
        self._last: Clocks | None = None

    def look(self, now: Clocks) -> list[Disturbance]:
        """Return what happened since the last look."""
        last, self._last = self._last, now
        if last is None:
            return []
        wall, elapsed, awake = (new - old for new, old in zip(now, last, strict=True))
        found = []
        step = wall - elapsed
        if abs(step) > STEP_S:
            found.append(Disturbance(Kind.SET_FORWARD if step > 0 else Kind.SET_BACK, abs(step)))
        if elapsed - awake > STEP_S:
            found.append(Disturbance(Kind.SLEPT, elapsed - awake))
        if awake - self._every_s > STALL_S:
            found.append(Disturbance(Kind.STOOD_STILL, awake - self._every_s))
        return found
