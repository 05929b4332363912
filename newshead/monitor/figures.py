"""The price monitor's figures at one moment, for whoever tells of them."""

from typing import NamedTuple

from newshead.tws.link import ConnectionState


class Figures(NamedTuple):
    """How the price monitor fares.

    `mode` is PAPER, LIVE or UNKNOWN; `delayed` says that data 15 minutes late is asked for;
    `account` is masked. `cycles`, `ticks`, `rows`, `alerts` and `reconnects` count from the
    monitor's start; `kept_rows` wait because ClickHouse fails. The ages are seconds since the
    end of the last cycle (infinite before the first) and since the newest data from IBKR (None
    if there was none).
    """

    state: ConnectionState
    mode: str
    delayed: bool
    account: str
    active_tickers: int
    cycles: int
    ticks: int
    rows: int
    alerts: int
    reconnects: int
    kept_rows: int
    last_cycle_s: float
    cycle_age_s: float
    tick_age_s: float | None
