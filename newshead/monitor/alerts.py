"""From price rows that were stored to alerts in `news_alert` and `price_move`."""

import logging
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from datetime import UTC, datetime
from typing import Any, Final

from newshead.core import rule
from newshead.core.rule import Rise
from newshead.core.tickers import TickerBook
from newshead.database import queries
from newshead.database.connection import DATABASE_ERRORS, Database
from newshead.database.store import RowWriter
from newshead.database.tables import AlertRow
from newshead.loop import off_loop
from newshead.monitor.questions import Question, Questions

# Rows and alerts are told where traders look for them.
logger = logging.getLogger("price_checker")

LATE_ALERT_S: Final = 10.0


class AlertDesk:
    """Judge rows that were stored, store what qualifies, and log alerts and outcomes.

    An alert is stored in `news_alert` first, then logged, then copied into `price_move`.
    For the monitor's loop, which it never blocks.
    """

    def __init__(
        self,
        database: Database,
        writer: RowWriter,
        questions: Questions,
        tickers: TickerBook,
        stats: MutableMapping[str, float],
        copy: Callable[[Rise], Awaitable[None]],
        was_halted: Callable[[str], bool],
        ask: Callable[..., Awaitable[Any]] = off_loop,
    ) -> None:
        """
        Parameters
        ----------
        writer
            Stores rows and alerts, in their order.
        questions
            Is told which questions the database answers.
        stats
            Its `alerts_triggered` counts the alerts that were logged.
        copy
            Puts an alert on its way into `price_move`; may raise one of DATABASE_ERRORS.
        was_halted
            Tells whether a ticker's trading was halted while it was tracked.
        ask
            Puts blocking questions to the database.
        """
        self._database = database
        self._writer = writer
        self._questions = questions
        self._tickers = tickers
        self._stats = stats
        self._copy = copy
        self._was_halted = was_halted
        self._ask = ask
        # Alerts on their way into news_alert, and those there but not in price_move.
        self._new: deque[Rise] = deque()
        self._written: deque[Rise] = deque()
        # Those of the session: a replica that lags does not show them yet.
        self._alerted: set[tuple[str, int]] = set()

    @property
    def idle(self) -> bool:
        """Whether no alert is on its way."""
        return not (self._new or self._written)

    @property
    def uncopied(self) -> int:
        """The number of alerts that are in `news_alert` and not on their way into `price_move`."""
        return len(self._written)

    def forget_session(self) -> None:
        """Begin a fresh session: tickers may alert again."""
        self._alerted.clear()

    async def restore(self) -> None:
        """Take up the session's alerts, and what a monitor which died had stored, but not copied.

        Raises
        ------
        ClickHouseError, DatabaseError
            They cannot be read.
        """
        self._alerted = await self._ask(queries.alerted, self._database)
        left = await self._ask(queries.uncopied, self._database)
        self._written.extend(left)
        if left:
            logger.warning(
                "%d alerts of a price monitor that died are copied into price_move now: %s.",
                len(left),
                ", ".join(f"{each.ticker} {each.timestamp:%H:%M:%S} UTC" for each in left),
            )

    async def check(self) -> None:
        """Apply the alert rule to the active tickers and to those that got rows."""
        tickers = self._tickers.active | self._tickers.unjudged.keys()
        # Rows or alerts that are still on their way would be judged wrongly or twice.
        if not tickers or len(self._writer.outbox):
            return
        try:
            rises, newest = await self._ask(queries.judged, self._database, tickers)
        except DATABASE_ERRORS as problem:
            self._questions.failed(Question.RULE, problem)
            return
        self._questions.answered(Question.RULE)
        if unseen := self._tickers.judge(tickers, newest):
            logger.warning(
                "The newest rows of %s cannot be found in ClickHouse: their last prices raise no "
                "alerts. Check its replicas.",
                ", ".join(unseen),
            )
        alerts: dict[tuple[str, int], Rise] = {}
        for rise in rises:
            if rise.qualifies:
                alerts.setdefault((rise.ticker, int(rise.timestamp.timestamp())), rise)
        for known in alerts.keys() & self._alerted:
            del alerts[known]
        if alerts:
            self._alerted |= alerts.keys()
            self._new.extend(alerts.values())
            self._writer.outbox.add(
                [AlertRow(a.ticker, a.timestamp, a.alert, a.price) for a in alerts.values()],
                _token if self._database.kind.replicated else None,
            )
            await self.store()
        else:
            self._log_held_back(rises)

    async def store(self) -> None:
        """Store what waits; log the alerts that came through and copy them into `price_move`."""
        if not await self._writer.flush():
            return
        while self._new:
            alert = self._new.popleft()
            self._log(alert)
            self._written.append(alert)
        while self._written:
            try:
                await self._copy(self._written[0])
            except DATABASE_ERRORS as problem:
                self._questions.failed(Question.NEWS, problem)
                return
            self._questions.answered(Question.NEWS)
            self._written.popleft()
        await self._writer.flush()

    async def log_outcomes(self) -> None:
        """Log what came of the windows that ended."""
        if not self._tickers.untold or len(self._writer.outbox):
            return
        ended = set(self._tickers.untold)
        try:
            outcomes = await self._ask(queries.outcomes, self._database, ended)
        except DATABASE_ERRORS as problem:
            self._questions.failed(Question.OUTCOMES, problem)
            return
        self._questions.answered(Question.OUTCOMES)
        self._tickers.untold -= ended
        for ticker in sorted(ended):
            happened = ["trading was halted"] if self._was_halted(ticker) else []
            happened += self._tickers.meanwhile(ticker)
            remark = f"; {', '.join(happened)} meanwhile" if happened else ""
            outcome = rule.describe(outcomes.get(ticker))
            logger.info("Window of %s ended: %s%s.", ticker, outcome, remark)

    def _log(self, alert: Rise) -> None:
        self._stats["alerts_triggered"] += 1
        logger.info(
            "ALERT %d for %s: $%.4f, %+.2f %% in %d s.",
            alert.alert,
            alert.ticker,
            alert.price,
            alert.change_pct,
            alert.seconds_elapsed,
        )
        late_s = (datetime.now(UTC) - alert.timestamp).total_seconds()
        if late_s > LATE_ALERT_S:
            logger.warning("The alert for %s is %.0f s late.", alert.ticker, late_s)

    def _log_held_back(self, rises: list[Rise]) -> None:
        held = {rise.ticker: rise for rise in rises if rise.held_back}
        for ticker in self._tickers.first_held_back(held):
            logger.info(
                "%s rose %+.1f %% and is held back: it is not rated BUY.",
                ticker,
                held[ticker].change_pct,
            )


def _token(alert: AlertRow) -> str:
    # On replicas a batch is stored once by its token alone, whoever sends it.
    return f"alert {alert.ticker} {alert.timestamp.timestamp():.0f}"
