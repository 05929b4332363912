"""What the page is told: JSON for the browser, CSV for a person's own tools."""

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from dashboard.queries import STALE_S, Alert, Card
from newshead.core.rule import ALERT_CHANGE_PCT, WINDOW_S
from newshead.database.connection import MAX_CLOCK_DIFFERENCE_S
from newshead.database.tables import StatusRow
from newshead.text import visible

# What the page draws by.
RULE: Final = {
    "window_s": WINDOW_S,
    "change_pct": ALERT_CHANGE_PCT,
    "stale_s": STALE_S,
    "clock_difference_s": MAX_CLOCK_DIFFERENCE_S,
}
# A spreadsheet takes text that begins so for a formula and computes it; where it is told of another
# separator than the comma, what stands behind that one begins a cell too.
_FORMULA: Final = re.compile(r'((?:^|[,;|\t\r\n])[\s"]*)(?=[=+@\-\uff1d\uff0b\uff20\uff0d])')

CARD_COLUMNS: Final = (
    "ticker",
    "headline",
    "article_url",
    "detected_at",
    "recommendation",
    "sentiment",
    "confidence",
    "first_row",
    "last_row",
    "baseline",
    "price",
    "change_pct",
    "best_change_pct",
    "rows",
    "alerts",
    "reason",
)
ALERT_COLUMNS: Final = ("timestamp", "ticker", "priority", "price", "change_pct", "seconds")
POINT_COLUMNS: Final = ("timestamp", "price", "volume", "change_pct", "seconds")


def compact(value: object) -> str:
    """JSON without blanks, in ASCII."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def status_json(status: StatusRow | None) -> dict[str, Any] | None:
    """Return a status with its times in Unix seconds."""
    if status is None:
        return None
    return {
        **{name: _visible(value) for name, value in status._asdict().items()},
        "timestamp": status.timestamp.timestamp(),
        "state_since": status.state_since.timestamp(),
    }


def card_json(card: Card, reason: str) -> dict[str, Any]:
    """Return a card with its times in Unix seconds, and the reason it has or has not alerted."""
    return {
        "ticker": visible(card.ticker),
        "began": card.began.timestamp(),
        "headline": visible(card.headline),
        "url": _link(card.article_url),
        **{name: visible(value) for name, value in card.rating._asdict().items()},
        "opened": _unix(card.opened),
        "closes": _unix(card.closes),
        "baseline": card.baseline,
        "rows": card.outcome.rows,
        "best_pct": card.outcome.best_change_pct,
        "reason": visible(reason),
        "points": [point[:4] for point in card.points],
        "alerts": [
            [_unix(a.timestamp), a.priority, a.price, a.change_pct, a.seconds] for a in card.alerts
        ],
    }


def cards_csv(cards: Iterable[Card], now: datetime) -> str:
    """Return the cards, one a line."""
    return _csv(
        CARD_COLUMNS,
        (
            (
                card.ticker,
                card.headline,
                card.article_url,
                card.news_at,
                card.rating.recommendation,
                card.rating.sentiment,
                card.rating.confidence,
                card.opened,
                card.last_row,
                card.baseline or None,
                card.price,
                card.change_pct,
                card.outcome.best_change_pct,
                card.outcome.rows,
                card.outcome.alerts,
                card.reason(now),
            )
            for card in cards
        ),
    )


def alerts_csv(cards: Iterable[Card]) -> str:
    """Return the cards' alerts, newest first."""
    alerts = sorted((a for card in cards for a in card.alerts), key=_when, reverse=True)
    return _csv(
        ALERT_COLUMNS,
        ((a.timestamp, a.ticker, a.priority, a.price, a.change_pct, a.seconds) for a in alerts),
    )


def points_csv(card: Card) -> str:
    """Return a chart's points, oldest first."""
    return _csv(
        POINT_COLUMNS,
        ((datetime.fromtimestamp(point.time, UTC), *point[1:]) for point in card.points),
    )


def _when(alert: Alert) -> datetime:
    return alert.timestamp


def _csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(columns)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return out.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, float):
        return round(value, 6)
    return _FORMULA.sub(r"\1'", visible(value)) if isinstance(value, str) else value


def _visible(value: object) -> object:
    return visible(value) if isinstance(value, str) else value


def _unix(at: datetime | None) -> float | None:
    return at.timestamp() if at is not None else None


def _link(url: str) -> str:
    """Return the address if it is one of the web, which a click may open."""
    return url if url.startswith(("https://", "http://")) and len(url) < 2048 else ""
