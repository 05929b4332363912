"""How tickers stand in the database: whose window is over, and how each is rated."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from newshead.core import rule
from newshead.database import queries
from newshead.database.connection import DATABASE_ERRORS, Database
from newshead.database.queries import Rating, Standing
from newshead.loop import off_loop
from newshead.monitor.questions import Question, Questions


class Standings:
    """Ask how tickers stand, and keep their ratings for when the database fails.

    For the monitor's loop, which it never blocks.
    """

    def __init__(
        self,
        database: Database,
        questions: Questions,
        ask: Callable[..., Awaitable[Any]] = off_loop,
    ) -> None:
        """
        Parameters
        ----------
        questions
            Is told whether the database answers.
        ask
            Puts blocking questions to the database.
        """
        self._database = database
        self._questions = questions
        self._ask = ask
        self._ratings: dict[str, Rating] = {}

    async def look_up(self, tickers: set[str]) -> dict[str, datetime] | None:
        """Return those of `tickers` whose window is over, with the time of their first row; None
        if the database cannot say. If it can, their ratings are up to date."""
        try:
            standing: Standing = await self._ask(
                queries.standing, self._database, tickers, rule.WINDOW_S
            )
        except DATABASE_ERRORS as problem:
            self._questions.failed(Question.WINDOWS, problem)
            return None
        self._questions.answered(Question.WINDOWS)
        for ticker in tickers:
            self._ratings.pop(ticker, None)
        self._ratings |= standing.ratings
        return standing.ended

    def ratings(self, tickers: set[str]) -> dict[str, Rating]:
        """Return the last known ratings of those of `tickers` that have one."""
        return {ticker: self._ratings[ticker] for ticker in tickers if ticker in self._ratings}

    def forget_session(self) -> None:
        """Forget all ratings."""
        self._ratings.clear()
