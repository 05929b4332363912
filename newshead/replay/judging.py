"""Sessions judged by a rule, with the very functions that live uses."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from newshead.core import rule
from newshead.core.rule import Changes, Outcome, PricePoint, Rise, Rule
from newshead.replay.sessions import Session, Window


class Judgement(NamedTuple):
    """What came of a window by a rule; `outcome` is None without rows."""

    window: Window
    rows: Sequence[PricePoint]
    alerts: Sequence[Rise]
    outcome: Outcome | None


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


def judge(session: Session, rules: Sequence[Rule]) -> list[Result]:
    """Return what comes of a session by each of the rules."""
    judged = [_judge(window, rules) for window in session.windows]
    return [
        Result(session.name, by, [window[number] for window in judged])
        for number, by in enumerate(rules)
    ]


def _judge(window: Window, rules: Sequence[Rule]) -> list[Judgement]:
    found: list[Judgement] = []
    # What rules with the same window and baseline have in common.
    common: dict[tuple[object, ...], tuple[Sequence[PricePoint], Changes]] = {}
    for by in rules:
        key = by.window_s, by.baseline_rows
        if key not in common:
            rows = window.rows(by)
            common[key] = rows, rule.changes(rows, by)
        rows, changes = common[key]
        if not rows:
            found.append(Judgement(window, rows, (), None))
            continue
        outcome = rule.outcome(changes, 0, by)
        alerts = _alerts(window, rows, by) if outcome.rises_in_range else []
        if alerts:
            outcome = rule.outcome(changes, len(alerts), by)
        found.append(Judgement(window, rows, alerts, outcome))
    return found


def _alerts(window: Window, rows: Sequence[PricePoint], by: Rule) -> list[Rise]:
    # Rows of one second give one alert.
    found: dict[datetime, Rise] = {}
    for rise in rule.rises(window.ticker, rule.judge(rows, by), (), window.score):
        if rise.qualifies:
            found.setdefault(rise.timestamp, rise)
    return list(found.values())
