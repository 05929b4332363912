"""When a lost stream is connected again, and whether it is asked for what it sent meanwhile.

No I/O and no clock: the caller hands in `now`, any clock in seconds that never goes back.
"""

from typing import Final

# The vendor advises to begin at about 2 s and to try at least every 15 s: its server holds
# a lost connection's slot for a few seconds.
PAUSES_S: Final = (2.0, 4.0, 8.0, 15.0)
MIN_RETRY_AFTER_S: Final = 1.0
MAX_RETRY_AFTER_S: Final = 900.0
# What comes so soon after `replay` may be old.
REPLAY_LASTS_S: Final = 5.0
# A connection that ends so soon after the first `replay` was ended by it.
REFUSED_WITHIN_S: Final = 1.0


def pause_s(failures: int, retry_after: str = "") -> float:
    """Return the seconds to wait after so many failures in a row.

    Parameters
    ----------
    retry_after
        The header of that name. A number of seconds in it counts instead, from 1 s to 15 minutes.
    """
    if retry_after.isascii() and retry_after.isdigit():
        return min(max(float(retry_after), MIN_RETRY_AFTER_S), MAX_RETRY_AFTER_S)
    return PAUSES_S[min(failures, len(PAUSES_S)) - 1]


class Replay:
    """Whether a stream is asked for its last messages, and which messages may be among them.

    Attributes
    ----------
    wanted
        Whether it is asked.
    """

    def __init__(self, *, wanted: bool) -> None:
        self.wanted = wanted
        self._asked_at: float | None = None
        # Whether the present connection was asked, whether an article came since, and whether
        # some connection outlived the question.
        self._is_asked = False
        self._brought = False
        self._proven = False

    def asked(self, now: float) -> None:
        """Note that it was asked."""
        self._asked_at = now
        self._is_asked, self._brought = True, False

    def covers(self, now: float) -> bool:
        """Return whether a message that comes now may be an old one."""
        return self._asked_at is not None and now - self._asked_at <= REPLAY_LASTS_S

    def brought(self) -> None:
        """Note that an article came."""
        self._brought = True

    def ended(self, now: float) -> bool:
        """Note that the connection ended, or none came about; return whether the question ended it:
        within a second, without an article, and none ever outlived one. Then it is asked no more.
        """
        asked, self._is_asked = self._is_asked, False
        if self._proven or not asked or self._asked_at is None:
            return False
        self._proven = now - self._asked_at > REFUSED_WITHIN_S
        if self._proven or self._brought:
            return False
        self.wanted, self._asked_at = False, None
        return True
