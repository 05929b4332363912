"""What came of the variants, as JSON, as a table and as a CSV file."""

import json
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from newshead.core import results, results_text
from newshead.core.results import Alert, Bar, Case, Watched
from newshead.core.rule import Rule, describe
from newshead.replay.judging import Judgement, Result

# Longer lists of tickers are cut in the table.
MAX_TICKERS: Final = 6
CSV_HEADER: Final = (
    "session",
    *Rule._fields,
    "windows",
    "alerts",
    "tickers_alerted",
    "alerts_gained",
    "alerts_lost",
)
TABLE_HEADER: Final = (
    "change",
    "window",
    "prices",
    "ratings",
    "baseline",
    "windows",
    "alerts",
    "tickers",
    "against the live rule",
)


def as_json(result: Result, *, rows: bool) -> str:
    """Return a session's result as one line; with the rows themselves if asked."""
    answer: dict[str, Any] = {
        "session": result.session,
        "variant": result.rule._asdict(),
        "windows": [_window(judgement, result.rule) for judgement in result.windows],
        "alerts": [
            {
                "ticker": alert.ticker,
                "timestamp": alert.timestamp.isoformat(),
                "price": alert.price,
                "change_pct": _known(alert.change_pct),
                "seconds_elapsed": alert.seconds_elapsed,
                "alert": alert.alert,
            }
            for alert in result.alerts
        ],
    }
    if rows:
        answer["rows"] = [
            {
                "ticker": judgement.window.ticker,
                "timestamp": _iso(row.time),
                "price": _known(row.price),
                "volume": row.volume,
                "recommendation": row.recommendation,
            }
            for judgement in result.windows
            for row in judgement.rows
        ]
    return json.dumps(answer, allow_nan=False)


class Tally:
    """A variant's figures over all sessions, beside those of the live rule."""

    def __init__(self, by: Rule) -> None:
        self.by = by
        self._windows = 0
        self._alerts = 0
        self._tickers: set[str] = set()
        self._gained = 0
        self._lost = 0
        self._live_tickers: set[str] = set()

    def add(self, result: Result, live: Result) -> tuple[object, ...]:
        """Add a session; return its line in the CSV file."""
        there, before = result.alerted, live.alerted
        tickers = {ticker for ticker, _ in there}
        line = (
            result.session,
            *(" ".join(map(str, v)) if isinstance(v, tuple) else v for v in result.rule),
            len(result.windows),
            len(there),
            len(tickers),
            len(there - before),
            len(before - there),
        )
        self._windows += len(result.windows)
        self._alerts += len(there)
        self._tickers |= tickers
        self._gained += len(there - before)
        self._lost += len(before - there)
        self._live_tickers |= {ticker for ticker, _ in before}
        return line

    @property
    def cells(self) -> tuple[str, ...]:
        """The variant's line in the table."""
        return (
            *rule_cells(self.by),
            str(self._windows),
            str(self._alerts),
            str(len(self._tickers)),
            self._changed(),
        )

    def _changed(self) -> str:
        if not (self._gained or self._lost):
            return "the same"
        changed = f"+{self._gained} -{self._lost} alerts"
        names = [
            *(f"+{ticker}" for ticker in sorted(self._tickers - self._live_tickers)),
            *(f"-{ticker}" for ticker in sorted(self._live_tickers - self._tickers)),
        ]
        if len(names) > MAX_TICKERS:
            names[MAX_TICKERS:] = [f"and {len(names) - MAX_TICKERS} more"]
        return f"{changed}: {' '.join(names)}" if names else changed


class Afterwards:
    """What prices did after a variant's alerts, and in windows without one, over all sessions.

    `bars` is what IBKR said afterwards, by ticker and first row.
    """

    def __init__(self, by: Rule, bars: Mapping[tuple[str, int], Sequence[Bar]]) -> None:
        self.by = by
        self._bars = bars
        self._cases: list[Case] = []
        self._unusable = 0

    def add(self, result: Result) -> None:
        """Add a session."""
        found, unusable = results.cases(map(self._watched, result.windows), self.by)
        self._cases += found
        self._unusable += unusable

    def _watched(self, judgement: Judgement) -> Watched:
        window, rows, alerts, _ = judgement
        return Watched(
            window.ticker,
            rows,
            alerts=[
                Alert(int(alert.timestamp.timestamp()), alert.alert, alert.price)
                for alert in alerts
            ],
            bars=self._bars.get((window.ticker, rows[0].time), ()) if rows else (),
        )

    @property
    def text(self) -> str:
        """The results, below the variant's name."""
        pairs = zip(TABLE_HEADER, rule_cells(self.by), strict=False)
        named = ", ".join(f"{name} {cell}" for name, cell in pairs)
        named = textwrap.fill(named, results_text.WIDTH)
        return f"{named}\n{results_text.text(self._cases, self._unusable)}"


def rule_cells(by: Rule) -> tuple[str, ...]:
    """Return a rule's thresholds, as far as TABLE_HEADER names them."""
    return (
        f"{by.change_pct:g} %",
        f"{by.window_s} s",
        f"{by.lowest:g} to {by.highest:g}",
        ",".join(by.ratings),
        ",".join(map(str, by.baseline_rows)),
    )


def table(tallies: Iterable[Tally]) -> str:
    """Return the variants' table."""
    lines = [TABLE_HEADER, *(tally.cells for tally in tallies)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(_line(cells, widths) for cells in lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
    return "  ".join(padded).rstrip()


def _window(judgement: Judgement, by: Rule) -> dict[str, Any]:
    window, rows, alerts, outcome = judgement
    judged = outcome is not None and outcome.judged
    return {
        "ticker": window.ticker,
        "first": _iso(window.first_s) if rows else None,
        "rows": len(rows),
        "alerts": len(alerts),
        "best_change_pct": _known(outcome.best_change_pct) if outcome and judged else None,
        "outcome": describe(outcome, by),
    }


def _iso(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).isoformat()


def _known(value: float) -> float | None:
    """Return a number that JSON has, or None."""
    return value if math.isfinite(value) else None
