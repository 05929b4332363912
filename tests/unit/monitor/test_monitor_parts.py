"""The states of the parts that the price monitor knows."""

from typing import Any

import pytest

from newshead.core.parts import (
    DATABASE,
    IBKR,
    MARKET_DATA,
    MONITOR,
    OF_MONITOR,
    TRIGGERS,
    PartState,
)
from newshead.monitor.figures import Figures
from newshead.monitor.parts import parts
from newshead.tws.link import ConnectionState

WELL = Figures(
    state=ConnectionState.READY,
    mode="PAPER",
    delayed=False,
    account="",
    active_tickers=2,
    cycles=9,
    ticks=9,
    rows=9,
    alerts=0,
    reconnects=0,
    kept_rows=0,
    last_cycle_s=0.1,
    cycle_age_s=1.0,
    tick_age_s=1.0,
)


def test_every_part_of_the_monitor_is_told() -> None:
    found = parts(WELL)
    assert {part.name for part in found} == set(OF_MONITOR)
    assert {part.state for part in found} == {PartState.OK}


@pytest.mark.parametrize(
    ("facts", "name", "state", "reason"),
    [
        ({"cycle_age_s": 12.0}, MONITOR, PartState.LOST, "the last cycle ended 12 s ago"),
        ({"cycles": 0, "cycle_age_s": 1e9}, MONITOR, PartState.LOST, "no cycle has ended yet"),
        (
            {"state": ConnectionState.DISCONNECTED, "dark_reason": "not connected."},
            IBKR,
            PartState.LOST,
            "not connected.",
        ),
        (
            {"state": ConnectionState.DISCONNECTED, "refused": True, "dark_reason": "too old."},
            IBKR,
            PartState.REFUSED,
            "too old.",
        ),
        ({"blind": True, "dark_reason": "why"}, MARKET_DATA, PartState.LOST, "BLIND: no data"),
        ({"dark_reason": "why"}, MARKET_DATA, PartState.LOST, "why"),
        ({"farms_away": ("usfarm",)}, MARKET_DATA, PartState.DEGRADED, "usfarm"),
        ({"late_tickers": 1}, MARKET_DATA, PartState.DEGRADED, "1 tickers"),
        ({"kept_rows": 3}, DATABASE, PartState.LOST, "3 rows are kept"),
        ({"unjudged": True}, DATABASE, PartState.LOST, "alerts cannot be judged"),
        ({"stored_age_s": 25.0}, DATABASE, PartState.LOST, "has taken nothing for 25 s"),
        ({"clock_difference_s": -2.1}, DATABASE, PartState.DEGRADED, "2.1 s off"),
        ({"trigger_problem": "No such file"}, TRIGGERS, PartState.LOST, "not picked up"),
    ],
)
def test_what_is_wrong_is_told_of_its_part(
    facts: dict[str, Any], name: str, state: PartState, reason: str
) -> None:
    found = {part.name: part for part in parts(WELL._replace(**facts))}
    assert found[name].state is state
    assert reason in found[name].reason
