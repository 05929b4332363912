"""How the parts of the news side fare: each source, the rating, the ticker list.

No I/O and no clock: `now` and the ages are handed in.
"""

from collections.abc import Sequence
from datetime import datetime, time, timedelta
from typing import Final, NamedTuple

from newshead.core.parts import NEWS, RATING, TICKER_LIST, Part, PartState
from newshead.core.times import NEW_YORK

# On weekdays between these some source has a message more often than so.
BUSY_FROM: Final = time(7)
BUSY_UNTIL: Final = time(17)
QUIET_S: Final = 900.0
ENDED: Final = "the news side has ended and is started again."


class SourceState(NamedTuple):
    """A source of news: its state and why; `message_age_s` is since its last message."""

    name: str
    state: PartState
    reason: str
    messages: int
    message_age_s: float | None


def source_parts(
    found: Sequence[SourceState], names: Sequence[str], now: datetime, running_s: float
) -> list[Part]:
    """Return how the sources of all `names` fare; those that are not found are not read.

    Parameters
    ----------
    running_s
        For how long they have been read.
    """
    ages = [each.message_age_s for each in found if each.message_age_s is not None]
    quiet_s = min([running_s, *ages])
    quiet = quiet_s >= QUIET_S and is_busy(now) and is_busy(now - timedelta(seconds=QUIET_S))
    read = {each.name for each in found}
    parts = [
        Part(f"{NEWS} {name}", PartState.OFF, "it is not read.")
        for name in names
        if name not in read
    ]
    for each in found:
        state, reason = each.state, each.reason
        if quiet and state is PartState.OK:
            state = PartState.DEGRADED
            reason = (
                f"no message of any source for {quiet_s / 60:.0f} minutes: check that its "
                "subscription still serves this key."
            )
        counts = {"messages": each.messages}
        parts.append(Part(f"{NEWS} {each.name}", state, reason, each.message_age_s, counts))
    return parts


def is_busy(at: datetime) -> bool:
    """Return whether news is to be expected then, holidays aside."""
    there = at.astimezone(NEW_YORK)
    return there.weekday() < 5 and BUSY_FROM <= there.time() < BUSY_UNTIL


def rating_part(
    *, idle: str, keys: int, refused: Sequence[str], problem: str, success_age_s: float | None
) -> Part:
    """Return how the rating fares.

    Parameters
    ----------
    idle
        Why nothing is rated by the user's own wish.
    refused
        Of so many `keys`, the variables of those that the service refuses.
    problem
        Why the last article was not rated.
    """
    state, reason = PartState.OK, ""
    hold = "every article is HOLD, nothing will alert"
    if idle:
        state, reason = PartState.OFF, f"{hold}: {idle}"
    elif len(refused) == keys:
        state = PartState.REFUSED
        reason = (
            f"the service refuses every key, {hold}: correct {', '.join(refused)} and start "
            "newshead again."
        )
    elif problem:
        state, reason = PartState.LOST, f"articles are HOLD until it works: {problem}"
    elif refused:
        state = PartState.DEGRADED
        reason = f"the service refuses {', '.join(refused)}: correct it and start newshead again."
    return Part(RATING, state, reason, success_age_s, {"keys": keys, "keys_refused": len(refused)})


def list_part(stocks: int, *, needed: bool, problem: str) -> Part:
    """Return how the ticker list fares.

    Parameters
    ----------
    needed
        Whether a ticker counts only where it is listed.
    problem
        Why the list is an older one.
    """
    state, reason = PartState.OK, ""
    if not needed:
        state, reason = PartState.OFF, "any ticker is taken, or no source is read."
    elif not stocks:
        state = PartState.LOST
        reason = (
            "News.float_list is empty, NO NEWS IS TAKEN: set TICKER_LIST_CSV or FINVIZ_EXPORT_URL "
            "and start without --skip-list, or start with --any."
        )
    elif problem:
        state, reason = PartState.DEGRADED, f"the list is an older one: {problem}"
    return Part(TICKER_LIST, state, reason, None, {"stocks": stocks})
