"""How the parts that the price monitor knows fare: the connection to IBKR, and its market data.

No I/O and no clock. `/healthz`, `part_status` and so whoever reads that tell the same.
"""

from enum import Enum
from typing import Final, NamedTuple

from newshead.monitor.figures import Figures

IBKR: Final = "ibkr"
MARKET_DATA: Final = "market data"


class PartState(Enum):
    """How a part fares; the words of `part_status.state`."""

    OK = "ok"
    DEGRADED = "degraded"
    LOST = "lost"
    REFUSED = "refused"
    OFF = "off"


class Part(NamedTuple):
    """A part, how it fares and why; `success_age_s` is since it last did what it is for."""

    name: str
    state: PartState
    reason: str
    success_age_s: float | None
    counts: dict[str, int]


def parts(figures: Figures) -> list[Part]:
    """Return how the parts fare."""
    return [_ibkr(figures), _market_data(figures)]


def _ibkr(figures: Figures) -> Part:
    if figures.connected:
        state, reason = PartState.OK, ""
    else:
        state = PartState.REFUSED if figures.refused else PartState.LOST
        reason = figures.dark_reason
    counts = {"reconnects": figures.reconnects}
    return Part(IBKR, state, reason, figures.message_age_s, counts)


def _market_data(figures: Figures) -> Part:
    counts = {
        "active_tickers": figures.active_tickers,
        "farms_away": len(figures.farms_away),
        "halted_tickers": figures.halted_tickers,
        "late_tickers": figures.late_tickers,
        "displaced_tickers": figures.displaced_tickers,
    }
    state, reason = PartState.OK, ""
    if figures.blind:
        state, reason = (
            PartState.LOST,
            f"BLIND: no data for any active ticker. {figures.dark_reason}",
        )
    elif figures.dark_reason:
        state, reason = PartState.LOST, figures.dark_reason
    elif figures.farms_away:
        state = PartState.DEGRADED
        reason = f"IBKR's data farms are broken: {', '.join(figures.farms_away)}."
    elif figures.late_tickers:
        state = PartState.DEGRADED
        reason = f"{figures.late_tickers} tickers are served no live data and get no rows."
    return Part(MARKET_DATA, state, reason.strip(), figures.tick_age_s, counts)
