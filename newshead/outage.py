"""What is said once until it is over, or once a minute."""

from typing import Final

TOLD_EVERY_S: Final = 60.0


class Outage:
    """Tells the begin and the end of a time in which something does not work, and its cause.

    Attributes
    ----------
    lasts
        Whether it is going on.
    reason
        Why; empty while nothing is going on, or where no reason was given.
    """

    def __init__(self) -> None:
        self.lasts = False
        self.reason = ""

    def begins(self, reason: str = "") -> bool:
        """Note a failure; return whether it is news: the first one, or one for another reason."""
        news = not self.lasts or reason != self.reason
        self.lasts, self.reason = True, reason
        return news

    def ends(self) -> bool:
        """Note a success; return whether it is news: an outage was going on."""
        was_going_on, self.lasts, self.reason = self.lasts, False, ""
        return was_going_on


class Recurrences:
    """What strangers do again and again, told at most once a minute with how often it happened.

    `now` is in monotonic seconds.
    """

    def __init__(self) -> None:
        # kind → (when it was told last, how often it happened since)
        self._told: dict[str, tuple[float, int]] = {}

    def note(self, kind: str, now: float) -> int:
        """Note one; return how many are to be told of now, or 0."""
        told_at, untold = self._told.get(kind, (-TOLD_EVERY_S, 0))
        if now - told_at < TOLD_EVERY_S:
            self._told[kind] = (told_at, untold + 1)
            return 0
        self._told[kind] = (now, 0)
        return untold + 1
