"""Whether this machine's clock is off, as the ages of news on arrival show it. No I/O, no clock."""

from collections import deque
from statistics import median
from typing import Final

# Articles that came within so long are looked at, if there are so many.
SPAN_S: Final = 300.0
LEAST: Final = 5
# Articles are stamped on the minute and arrive up to a minute later.
SPREAD_S: Final = 60.0
# A vendor's clock may be a little ahead of this machine's.
BEHIND_S: Final = 10.0
SAY_EVERY_S: Final = 1_800.0


class ClockCheck:
    """Tells when most new articles are old, or from the future, by nearly the same amount."""

    def __init__(self, old_s: float) -> None:
        """`old_s` is the age from which on an article is old, in seconds."""
        self._old_s = old_s
        # When each came, and its age then.
        self._ages: deque[tuple[float, float]] = deque()
        self._told_at: float | None = None

    def add(self, age_s: float, now: float) -> float:
        """Note a new article; return by how many seconds the clock seems to be ahead, negative if
        it is behind.

        0 where it seems right, and while that was told within the last half an hour.

        Parameters
        ----------
        age_s
            How old it is; negative if it is from the future.
        now
            Any clock in seconds that never goes back.
        """
        self._ages.append((now, age_s))
        while self._ages[0][0] < now - SPAN_S:
            self._ages.popleft()
        told = self._told_at is not None and now - self._told_at < SAY_EVERY_S
        if told or not self._is_odd(age_s) or len(self._ages) < LEAST:
            return 0.0
        ages = [age for _, age in self._ages]
        middle = median(ages)
        alike = sum(abs(age - middle) <= SPREAD_S for age in ages)
        if not self._is_odd(middle) or alike <= len(ages) / 2:
            return 0.0
        self._told_at = now
        return middle

    def _is_odd(self, age_s: float) -> bool:
        return age_s > self._old_s or age_s < -BEHIND_S
