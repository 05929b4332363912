"""The price monitor's figures at one moment, for whoever tells of them."""

from typing import NamedTuple

from newshead.core.follow_up import Counts
from newshead.tws.link import ConnectionState


class Figures(NamedTuple):
    """How the price monitor fares.

    `mode` is PAPER, LIVE or UNKNOWN; `delayed` says that data 15 minutes late is asked for;
    `account` is masked. `cycles`, `ticks`, `rows`, `alerts` and `reconnects` count from the
    monitor's start; `kept_rows` wait because ClickHouse fails. The ages are seconds since the
    end of the last cycle (infinite before the first), since the newest data from IBKR and since
    its last message (None if there was none).

    `dark_reason` says why no data can come, empty while it can; `refused` that trying again is no
    use until the user has acted; `blind` that tickers are active and none of them gets data.
    `farms_away` are the data farms with US stocks that are broken. `unjudged`: ClickHouse does not
    answer what the alert rule asks. `stored_age_s` is since it took a status, `clock_difference_s`
    by how much its clock is ahead; `trigger_problem` is why the trigger folder cannot be read.
    `follow_up` tells of the requests for past bars; None where there are to be none.
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
    message_age_s: float | None = None
    dark_reason: str = ""
    refused: bool = False
    blind: bool = False
    farms_away: tuple[str, ...] = ()
    halted_tickers: int = 0
    late_tickers: int = 0
    displaced_tickers: int = 0
    unjudged: bool = False
    stored_age_s: float = 0.0
    clock_difference_s: float = 0.0
    trigger_problem: str = ""
    follow_up: Counts | None = None

    @property
    def connected(self) -> bool:
        """Whether TWS takes requests, with data or without."""
        return self.state in (ConnectionState.READY, ConnectionState.STALE)
