"""ClickHouse as the price monitor and its users' code know it: one object with a connection and
all that is asked of it. The parts are in `newshead/database/`.

Everything blocks and belongs off the event loop. Times are aware UTC.
"""

from collections.abc import Collection
from datetime import datetime
from pathlib import Path

from newshead.core import rule
from newshead.core.rule import Outcome, Rise
from newshead.database import history, queries, schema
from newshead.database.connection import Database
from newshead.database.queries import News, Standing, Window
from newshead.monitor.triggers import TriggerFolder
from newshead.settings import Settings


class ClickHouseManager(Database):
    """A connection with the tables, the questions and the trigger files of the price monitor."""

    def __init__(self, settings: Settings | None = None) -> None:
        """By default with the settings of the environment; see `Settings.from_environment`."""
        super().__init__(settings or Settings.from_environment())
        self._triggers = TriggerFolder(self.settings.trigger_folder)

    def create_tables(self) -> None:
        """Create what is missing; see `schema.create_tables`."""
        schema.create_tables(self)

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
        return queries.standing(self, tickers, rule.WINDOW_S)

    def newest_news(self, ticker: str) -> News | None:
        """Return the ticker's newest news of this session."""
        return queries.newest_news(self, ticker)

    def rises(self, tickers: Collection[str]) -> list[Rise]:
        """Return the rows that reached the threshold and have no alert yet; see `queries.rises`."""
        return queries.rises(self, tickers)

    def outcomes(self, tickers: Collection[str]) -> dict[str, Outcome]:
        """Return what came of the windows of those of `tickers` that have rows."""
        return queries.outcomes(self, tickers)
