"""Sessions judged by a rule, with the very functions that live uses."""

from collections import defaultdict
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
    found: dict[Rule, list[Judgement]] = {by: [] for by in rules}
    # A window's rows and their changes are the same for all rules of a group.
    groups: dict[tuple[object, ...], list[tuple[Rule, list[Judgement]]]] = defaultdict(list)
    for by, judged in found.items():
        groups[by.window_s, by.baseline_rows].append((by, judged))
    for group in groups.values():
        any_of_it, _ = group[0]
        for window in session.windows:
            rows = window.rows(any_of_it)
            changes = rule.changes(rows, any_of_it)
            for by, judged in group:
                judged.append(_judge(window, rows, changes, by))
    return [Result(session.name, by, found[by]) for by in rules]


def _judge(window: Window, rows: Sequence[PricePoint], changes: Changes, by: Rule) -> Judgement:
    if not rows:
        return Judgement(window, rows, (), None)
    outcome = rule.outcome(changes, 0, by)
    if not outcome.rises_in_range:
        return Judgement(window, rows, (), outcome)
    alerts = _alerts(window, rows, by)
    return Judgement(window, rows, alerts, rule.outcome(changes, len(alerts), by))


def _alerts(window: Window, rows: Sequence[PricePoint], by: Rule) -> list[Rise]:
    # Rows of one second give one alert.
    found: dict[datetime, Rise] = {}
    for rise in rule.rises(window.ticker, rule.judge(rows, by), (), window.score):
        if rise.qualifies:
            found.setdefault(rise.timestamp, rise)
    return list(found.values())
