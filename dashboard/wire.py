"""What the page is told: JSON for the browser, CSV for a person's own tools."""

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from dashboard.cards import Alert, Article, Card
from dashboard.earlier import Session
from newshead.core import parts
from newshead.core.parts import Told
from newshead.core.rule import ALERT_CHANGE_PCT, WINDOW_S
from newshead.core.times import NEW_YORK
from newshead.database.connection import MAX_CLOCK_DIFFERENCE_S
from newshead.database.tables import StatusRow
from newshead.text import visible

# What the page draws by.
RULE: Final = {
    "window_s": WINDOW_S,
    "change_pct": ALERT_CHANGE_PCT,
    "stale_s": parts.STALE_S,
    "clock_difference_s": MAX_CLOCK_DIFFERENCE_S,
}
# What is mended is of interest for a while.
MAX_MENDED: Final = 10
# A spreadsheet takes text that begins so for a formula and computes it; where it is told of another
# separator than the comma, what stands behind that one begins a cell too.
_FORMULA: Final = re.compile(r'((?:^|[,;|\t\r\n])[\s"]*)(?=[=+@\-\uff1d\uff0b\uff20\uff0d])')

CARD_COLUMNS: Final = (
    "ticker",
    "headline",
    "article_url",
    "source",
    "published_at",
    "detected_at",
    "articles",
    "recommendation",
    "sentiment",
    "confidence",
    "explanation",
    "country",
    "float_shares",
    "previous_close",
    "day_volume",
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
ALERT_COLUMNS: Final = (
    *("timestamp", "ticker", "priority", "price", "change_pct", "seconds"),
    *("headline", "article_url"),
)
POINT_COLUMNS: Final = ("timestamp", "price", "trade_size", "change_pct", "seconds")
# Of a ticker's other articles no more are shown than these, the newest, and those that alerted.
MAX_OTHERS: Final = 20


def compact(value: object) -> str:
    """JSON without blanks, in ASCII."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def parts_json(rows: Sequence[Told], now: datetime) -> dict[str, Any]:
    """Return how the parts fare now: of each its name, state and reason, since when, and when it
    last did what it is for; what costs alerts for sure, and maybe; and what is mended."""
    current = parts.newest(rows, now)
    return {
        "parts": [
            [
                visible(part.name),
                part.state.value,
                visible(part.reason),
                part.since.timestamp(),
                _unix(part.success),
            ]
            for part in current
        ],
        "failing": [visible(part.problem) for part in parts.failing(current, now)],
        "degraded": [visible(part.problem) for part in parts.degraded(current)],
        "mended": [
            [visible(each.name), visible(each.reason), each.since.timestamp(), _unix(each.until)]
            for each in parts.mended(rows)[:MAX_MENDED]
        ],
    }


def status_json(status: StatusRow | None) -> dict[str, Any] | None:
    """Return a status with its times in Unix seconds."""
    if status is None:
        return None
    return {
        **{name: _visible(value) for name, value in status._asdict().items()},
        "timestamp": status.timestamp.timestamp(),
        "state_since": status.state_since.timestamp(),
    }


def session_json(session: Session) -> dict[str, Any]:
    """Return an earlier session with its times in Unix seconds."""
    times = {"begin": session.begin.timestamp(), "end": session.end.timestamp()}
    return session._asdict() | times


def card_key(card: Card) -> str:
    """Return what names a card: in earlier sessions a ticker may have several."""
    if card.session and card.opened is not None:
        return f"{card.ticker}@{int(card.opened.timestamp())}"
    return card.ticker


def card_json(card: Card, reason: str, condition: str) -> dict[str, Any]:
    """Return a card with its times in Unix seconds, the reason it has or has not alerted, and what
    keeps it from having new prices."""
    alerting = {alert.article for alert in card.alerts}
    others = [
        article
        for number, article in enumerate(card.others)
        if number < MAX_OTHERS or article in alerting
    ]
    return {
        "key": visible(card_key(card)),
        "ticker": visible(card.ticker),
        "session": card.session,
        "began": card.began.timestamp(),
        "article": _article_json(card.article) if card.article else None,
        "others": [_article_json(article) for article in others],
        "articles": card.article_count,
        "explanation": visible(card.explanation),
        **{name: visible(value) for name, value in card.rating._asdict().items()},
        "country": visible(card.company.country),
        "float_shares": card.company.float_shares,
        "previous_close": card.previous_close,
        "gap_pct": card.gap_pct,
        "day_volume": card.day_volume,
        "condition": condition,
        "opened": _unix(card.opened),
        "closes": _unix(card.closes),
        "baseline": card.baseline,
        "rows": card.outcome.rows,
        "best_pct": card.outcome.best_change_pct,
        "reason": visible(reason),
        "points": [point[:4] for point in card.points],
        "alerts": [_alert_json(alert, others) for alert in card.alerts],
    }


def _article_json(article: Article) -> dict[str, Any]:
    return {
        "headline": visible(article.headline),
        "url": _link(article.url),
        "source": visible(article.source),
        "published": _unix(article.published_at),
        "detected": article.detected_at.timestamp(),
        "recommendation": visible(article.rating.recommendation) if article.rated else "",
    }


def _alert_json(alert: Alert, others: Sequence[Article]) -> list[Any]:
    """Return an alert; its article is the place among the other ones, or -1 for the card's own."""
    place = others.index(alert.article) if alert.article in others else -1
    return [
        _unix(alert.timestamp),
        alert.priority,
        alert.price,
        alert.change_pct,
        alert.seconds,
        place,
    ]


def cards_csv(cards: Iterable[Card], now: datetime) -> str:
    """Return the cards, one a line."""
    return _csv(CARD_COLUMNS, (_card_cells(card, now) for card in cards))


def _card_cells(card: Card, now: datetime) -> list[object]:
    article = card.article
    return [
        card.ticker,
        *((article.headline, article.url, article.source) if article else ("", "", "")),
        *((article.published_at, article.detected_at) if article else (None, None)),
        card.article_count,
        card.rating.recommendation,
        card.rating.sentiment,
        card.rating.confidence,
        card.explanation,
        card.company.country,
        card.company.float_shares or None,
        card.previous_close or None,
        card.day_volume or None,
        card.opened,
        card.last_row,
        card.baseline or None,
        card.price,
        card.change_pct,
        card.outcome.best_change_pct,
        card.outcome.rows,
        card.outcome.alerts,
        card.reason(now),
    ]


def alerts_csv(cards: Iterable[Card]) -> str:
    """Return the cards' alerts, newest first."""
    found = sorted(
        ((alert, card) for card in cards for alert in card.alerts),
        key=lambda each: each[0].timestamp,
        reverse=True,
    )
    return _csv(
        ALERT_COLUMNS,
        (
            (a.timestamp, a.ticker, a.priority, a.price, a.change_pct, a.seconds, *_news(a, card))
            for a, card in found
        ),
    )


def _news(alert: Alert, card: Card) -> tuple[str, str]:
    article = alert.article or card.article
    return (article.headline, article.url) if article else ("", "")


def points_csv(card: Card) -> str:
    """Return a chart's points, oldest first."""
    return _csv(
        POINT_COLUMNS,
        ((datetime.fromtimestamp(point.time, UTC), *point[1:]) for point in card.points),
    )


def _csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(columns)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return out.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(NEW_YORK).isoformat()
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
