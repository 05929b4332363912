"""Something that is said once until it is over, or at most once a minute."""

from typing import Final

SAY_EVERY_S: Final = 60.0


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


class Repeated:
    """Tells when something that happens often is to be said again: at most once a minute.

    Attributes
    ----------
    count
        How often it happened.
    """

    def __init__(self) -> None:
        self.count = 0
        self._said = 0
        self._said_at: float | None = None

    def happens(self, now: float) -> int:
        """Note it; return how often it happened since it was last said, or 0 if it is too soon.

        Parameters
        ----------
        now
            Any clock in seconds that never goes back.
        """
        self.count += 1
        if self._said_at is not None and now - self._said_at < SAY_EVERY_S:
            return 0
        since, self._said, self._said_at = self.count - self._said, self.count, now
        return since
