"""How the parts that the price monitor knows fare. No I/O and no clock."""

from typing import Final

from newshead.core.parts import DATABASE, IBKR, MARKET_DATA, MONITOR, TRIGGERS, Part, PartState
from newshead.database.connection import MAX_CLOCK_DIFFERENCE_S
from newshead.monitor.figures import Figures

# A monitor whose last cycle is older does not work.
MAX_CYCLE_AGE_S: Final = 10.0
# A status is stored every 10 s.
MAX_STORED_AGE_S: Final = 25.0


def parts(figures: Figures) -> list[Part]:
    """Return how the parts fare."""
    return [
        _monitor(figures),
        _ibkr(figures),
        _market_data(figures),
        _database(figures),
        _triggers(figures),
    ]


def _monitor(figures: Figures) -> Part:
    state, reason = PartState.OK, ""
    if figures.cycle_age_s >= MAX_CYCLE_AGE_S:
        state = PartState.LOST
        reason = (
            f"the last cycle ended {figures.cycle_age_s:.0f} s ago; its log says what it waits for."
            if figures.cycles
            else "no cycle has ended yet; its log says what it waits for."
        )
    age_s = figures.cycle_age_s if figures.cycles else None
    return Part(MONITOR, state, reason, age_s, {"cycles": figures.cycles})


def _ibkr(figures: Figures) -> Part:
    if figures.connected:
        state, reason = PartState.OK, ""
    else:
        state = PartState.REFUSED if figures.refused else PartState.LOST
        reason = figures.dark_reason.strip()
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


def _database(figures: Figures) -> Part:
    state, reason = PartState.OK, ""
    if figures.kept_rows:
        state = PartState.LOST
        reason = f"{figures.kept_rows} rows are kept because ClickHouse does not take them."
    elif figures.unjudged:
        state = PartState.LOST
        reason = "alerts cannot be judged because ClickHouse does not answer."
    elif figures.stored_age_s >= MAX_STORED_AGE_S:
        state = PartState.LOST
        reason = f"ClickHouse has taken nothing for {figures.stored_age_s:.0f} s; the log says why."
    elif abs(figures.clock_difference_s) > MAX_CLOCK_DIFFERENCE_S:
        state = PartState.DEGRADED
        reason = (
            f"its clock is {abs(figures.clock_difference_s):.1f} s off this machine's: synchronise "
            "both (NTP)."
        )
    return Part(DATABASE, state, reason, figures.stored_age_s, {"kept_rows": figures.kept_rows})


def _triggers(figures: Figures) -> Part:
    if not figures.trigger_problem:
        return Part(TRIGGERS, PartState.OK)
    reason = f"it cannot be read, triggers are not picked up: {figures.trigger_problem}"
    return Part(TRIGGERS, PartState.LOST, reason)
