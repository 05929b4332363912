"""ClickHouse as the price monitor and its users' code know it: one object with a connection and
all that is asked of it. The parts are in `newshead/database/`.

Everything blocks and belongs off the event loop. Times are aware UTC.
"""

from collections.abc import Collection, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from newshead.database import history, queries, tables
from newshead.database.connection import Database
from newshead.database.queries import MOVED, OUTCOMES, RISING, News, Standing, Window
from newshead.monitor.triggers import TriggerFolder
from newshead.settings import Settings

WINDOW_S: Final = 60
ALERT_CHANGE_PCT: Final = 5.0
# Alerts are for prices from the first (included) to the second (excluded), USD.
ALERT_PRICES: Final = (0.40, 11.0)


class Rise(NamedTuple):
    """A row at or above the alert threshold, not alerted yet.

    `qualifies`: the alert rule holds. `held_back`: only the rating is in its way.
    """

    ticker: str
    timestamp: datetime
    price: float
    change_pct: float
    seconds_elapsed: int
    qualifies: bool
    held_back: bool
    alert: int


class Outcome(NamedTuple):
    """What came of a ticker's window: counts of its rows, and its best change in percent."""

    alerts: int
    rows: int
    judged: int
    best_change_pct: float
    rises: int
    rises_in_range: int


class ClickHouseManager(Database):
    """A connection with the tables, the questions and the trigger files of the price monitor."""

    def __init__(self, settings: Settings | None = None) -> None:
        """By default with the settings of the environment; see `Settings.from_environment`."""
        super().__init__(settings or Settings.from_environment())
        self._triggers = TriggerFolder(self.settings.trigger_folder)

    def create_tables(self) -> None:
        """Create what is missing; see `tables.create_tables`."""
        tables.create_tables(self)

    def move_session(self, keep_news_since: datetime | None = None) -> dict[str, int]:
        """Move the session's rows to the history; see `history.move_session`."""
        return history.move_session(self, keep_news_since)

    def create_immediate_trigger(self, ticker: str, timestamp: datetime | None = None) -> Path:
        """Write a trigger file for `ticker`; see `TriggerFolder.write`."""
        return self._triggers.write(ticker, timestamp)

    def active_tickers(self) -> list[str]:
        """Return the tickers with news in the last 5 minutes; see `queries.active_tickers`."""
        return queries.active_tickers(self)

    def windows(self) -> dict[str, Window]:
        """Return the windows of all tickers that have rows in this session."""
        return queries.windows(self)

    def standing(self, tickers: Collection[str]) -> Standing:
        """Return which of `tickers` have their window behind them, and the ratings; see
        `queries.standing`."""
        return queries.standing(self, tickers, WINDOW_S)

    def newest_news(self, ticker: str) -> News | None:
        """Return the ticker's newest news of this session."""
        return queries.newest_news(self, ticker)

    # The name that the rule's two questions know.
    _rows = Database.rows

    def rises(self, tickers: Collection[str]) -> list[Rise]:
        """The rows of `tickers` that reached the threshold and have no alert yet, in time order."""
        moved = self._rows(MOVED, tickers=list(tickers), change_pct=ALERT_CHANGE_PCT)
        if not moved:
            return []
        return [Rise(*row) for row in self._rows(RISING, **rule(ticker for (ticker,) in moved))]

    def outcomes(self, tickers: Collection[str]) -> dict[str, Outcome]:
        """What came of the windows of those of `tickers` that have rows."""
        rows = self._rows(OUTCOMES, **rule(tickers))
        return {ticker: Outcome(*outcome) for ticker, *outcome in rows}


def rule(tickers: Iterable[str] = ()) -> dict[str, Any]:
    """The parameters of a query about `JUDGED`."""
    lowest, highest = ALERT_PRICES
    return {
        "tickers": list(tickers),
        "window_s": WINDOW_S,
        "change_pct": ALERT_CHANGE_PCT,
        "lowest": lowest,
        "highest": highest,
    }


def describe(outcome: Outcome | None) -> str:
    """What came of a window, in a trader's words; None stands for a ticker without rows."""
    if outcome is None:
        return "no ticks"
    best = f"best change {outcome.best_change_pct:+.1f} % of {ALERT_CHANGE_PCT:.0f} %"
    if outcome.alerts:
        return f"{outcome.alerts} alert{'s' if outcome.alerts > 1 else ''}, {best}"
    if not outcome.judged:
        return f"no alert, only {outcome.rows} prices"
    if not outcome.rises:
        return f"no alert, {best}"
    if not outcome.rises_in_range:
        lowest, highest = ALERT_PRICES
        return f"no alert, price outside {lowest:.2f} to {highest:.0f}, {best}"
    return f"no alert, not rated BUY, {best}"
