"""Sessions judged by a rule, with the very functions that live uses."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from newshead.core import rule
from newshead.core.rule import Outcome, PricePoint, Rise, Rule
from newshead.replay.sessions import Session, Window


class Judgement(NamedTuple):
    """What came of a window by a rule: its rows, its alerts, and its outcome (None without rows) in
    the log's words."""

    window: Window
    rows: Sequence[PricePoint]
    alerts: Sequence[Rise]
    outcome: Outcome | None
    text: str


class Result(NamedTuple):
    """What came of a session by a rule."""

    session: str
    rule: Rule
    windows: Sequence[Judgement]

    @property
    def alerts(self) -> list[Rise]:
        """The alerts in time order."""
        found = [alert for judgement in self.windows for alert in judgement.alerts]
        return sorted(found, key=lambda alert: (alert.timestamp, alert.ticker))

    @property
    def alerted(self) -> set[tuple[str, datetime]]:
        """The rows that alerted."""
        return {
            (alert.ticker, alert.timestamp)
            for judgement in self.windows
            for alert in judgement.alerts
        }


def judge(session: Session, by: Rule) -> Result:
    """Return what comes of a session by a rule."""
    return Result(session.name, by, [_judge(window, by) for window in session.windows])


def _judge(window: Window, by: Rule) -> Judgement:
    rows = window.rows(by)
    if not rows:
        return Judgement(window, rows, (), None, rule.describe(None, by))
    outcome = rule.outcome(rows, 0, by)
    # Rows of one second give one alert.
    alerts: dict[datetime, Rise] = {}
    if outcome.rises_in_range:
        for rise in rule.rises(window.ticker, rule.judge(rows, by), (), window.score):
            if rise.qualifies:
                alerts.setdefault(rise.timestamp, rise)
        outcome = outcome._replace(alerts=len(alerts))
    return Judgement(window, rows, list(alerts.values()), outcome, rule.describe(outcome, by))
