"""Something that is said once until it is over."""


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
