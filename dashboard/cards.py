"""A card: all that is known of a ticker in one session, made of the rows that were read. No I/O."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from newshead.core import market, rule
from newshead.core.rule import WINDOW_S, Outcome, PricePoint
from newshead.database.queries import UNRATED, Rating
from newshead.text import parse_time

# A row stands for the trades of so many seconds from its time on.
SLOT_S: Final = 2
# A rating may reach a row that begins so many seconds before the rating is stored.
RATED_AFTER_ROW: Final = timedelta(seconds=4)


class Point(NamedTuple):
    """A stored price: Unix time, USD, the size of its trade in shares, change from the baseline in
    percent, and seconds since the ticker's first row. The first two have no change: 0."""

    time: int
    price: float
    size: int
    change_pct: float
    seconds: int


class Article(NamedTuple):
    """An article about a ticker, and its rating; `published_at` is None where its source does not
    say it in a way that can be read. `rated`: the rating is the model's."""

    detected_at: datetime
    published_at: datetime | None
    source: str
    headline: str
    url: str
    rating: Rating
    explanation: str
    analyzed_at: datetime
    rated: bool


class Alert(NamedTuple):
    """A row of `news_alert`, with its row's change and seconds: None where that row is gone.

    `article` is the one that its rating came from, as far as it can be told.
    """

    ticker: str
    timestamp: datetime
    priority: int
    price: float
    change_pct: float | None = None
    seconds: int | None = None
    article: Article | None = None


class Told(NamedTuple):
    """What TWS said last of a ticker besides its trades; see `TickerStatusRow`."""

    at: datetime
    halted: int = market.NOT_HALTED
    data_type: int = market.LIVE
    refused: str = ""
    previous_close: float = 0.0
    day_volume: int = 0


class Company(NamedTuple):
    """What the ticker list says of a ticker: empty and 0 where it does not."""

    country: str = ""
    float_shares: float = 0.0


class Card(NamedTuple):
    """All that is known of a ticker in one session.

    `article` is the one that its window began with, or the newest while there is no window;
    `others` are the rest, newest first. `rating` is the newest one. `opened` and `last_row` are the
    times of its first and newest row; each is None where there is none. `prices` are its rows,
    oldest first. `session` names the earlier session that it is of.
    """

    ticker: str
    rating: Rating
    outcome: Outcome
    article: Article | None = None
    others: tuple[Article, ...] = ()
    opened: datetime | None = None
    last_row: datetime | None = None
    prices: tuple[PricePoint, ...] = ()
    alerts: tuple[Alert, ...] = ()
    told: Told | None = None
    company: Company = Company()
    session: str = ""

    @property
    def baseline(self) -> float:
        """What changes are from, in USD; 0 before the third price."""
        return rule.baseline(self.prices)

    @property
    def points(self) -> tuple[Point, ...]:
        """Its rows, oldest first; made anew at each call."""
        return tuple(map(Point._make, _points(self.prices)))

    @property
    def article_count(self) -> int:
        """How many articles it has."""
        return len(self.others) + (self.article is not None)

    @property
    def previous_close(self) -> float:
        """USD; 0 where it is unknown."""
        return self.told.previous_close if self.told else 0.0

    @property
    def day_volume(self) -> int:
        """Shares; 0 where it is unknown."""
        return self.told.day_volume if self.told else 0

    @property
    def headline(self) -> str:
        """The headline of its article; empty without one."""
        return self.article.headline if self.article else ""

    @property
    def price(self) -> float | None:
        """The newest price in USD."""
        return self.prices[-1].price if self.prices else None

    @property
    def change_pct(self) -> float | None:
        """The newest price's change from the baseline."""
        return rule.all_changes_pct(self.prices)[-1] if self.baseline else None

    @property
    def gap_pct(self) -> float | None:
        """The newest price's change from the previous close, where both are known."""
        close = self.previous_close
        return (self.price - close) / close * 100 if close > 0 and self.price else None

    @property
    def explanation(self) -> str:
        """What the model said for its newest rating, or why there is none."""
        articles = [self.article, *self.others] if self.article else []
        rated = [article for article in articles if article.rated] or articles
        newest = max(rated, key=lambda article: article.analyzed_at, default=None)
        return newest.explanation if newest else ""

    @property
    def began(self) -> datetime:
        """When the ticker came up: by its article, its first row or what TWS said of it."""
        if self.article is not None:
            return self.article.detected_at
        return self.opened or (self.told.at if self.told else datetime.min.replace(tzinfo=UTC))

    @property
    def closes(self) -> datetime | None:
        """When the 60-second window ends, which counts whole seconds."""
        return self.opened + timedelta(seconds=WINDOW_S + 1) if self.opened else None

    def over(self, now: datetime) -> bool:
        """Return whether its window has ended."""
        return self.closes is not None and now >= self.closes

    def condition(self, now: datetime) -> str:
        """Return what keeps it from having new prices, in a few words; empty once it is no longer
        watched."""
        if self.told is None or self.over(now):
            return ""
        return market.describe(self.told.halted, self.told.data_type)

    def reason(self, now: datetime) -> str:
        """Return why it has or has not alerted, in a trader's words."""
        if self.over(now):
            return f"window over: {rule.describe(self.outcome)}"
        condition = self.condition(now)
        reason = self._reason_while_open(now)
        return f"{condition}: {reason}" if condition else reason

    def _reason_while_open(self, now: datetime) -> str:
        if self.opened is not None:
            return rule.describe_open(self.outcome, self.rating.recommendation, self.change_pct)
        if self.told is not None and self.told.refused:
            return self.told.refused
        if (now - self.began).total_seconds() <= WINDOW_S:
            return "waiting for the first price"
        return "no price since the news" if self.article else "no news and no price"


def article_began_with(articles: Sequence[Article], opened: datetime | None) -> Article | None:
    """Return the article that a window began with: the newest before its first row, or else the
    oldest; the newest of all where there is no window."""
    if opened is None:
        return max(articles, key=_detected, default=None)
    end = opened + timedelta(seconds=SLOT_S)
    before = [article for article in articles if article.detected_at <= end]
    if before:
        return max(before, key=_detected)
    return min(articles, key=_detected, default=None)


def article_rated(
    articles: Sequence[Article], recommendation: str, row_at: datetime
) -> Article | None:
    """Return the article that the rating of a price row came from, if it can be told."""
    fitting = [
        article
        for article in articles
        if article.rating.recommendation == recommendation
        and article.analyzed_at <= row_at + RATED_AFTER_ROW
    ]
    return max(fitting, key=lambda article: article.analyzed_at, default=None)


def article_of(row: Sequence[Any]) -> Article:
    """Return the article of a row that the queries of news give, behind its ticker."""
    _, detected, published, source, headline, url, *rating, explanation, analyzed, rated = row
    return Article(
        detected,
        parse_time(published),
        source,
        headline,
        url,
        Rating(*rating),
        explanation,
        analyzed,
        bool(rated),
    )


def make_card(
    ticker: str,
    window: Sequence[Any] | None,
    articles: Sequence[Article],
    alerted: Sequence[Sequence[Any]],
) -> Card:
    """Return a card of a ticker's articles, and of the rows that the queries of windows and alerts
    give of it, the latter newest first."""
    rated = [article for article in articles if article.rated]
    newest = max(rated, key=lambda article: article.analyzed_at, default=None)
    _, opened, last_row, rows = window or (ticker, None, None, ())
    article = article_began_with(articles, opened)
    others = sorted((a for a in articles if a is not article), key=_detected, reverse=True)
    prices = tuple(map(PricePoint._make, rows))
    pairs = zip(_points(prices), prices, strict=True) if alerted else ()
    by_time = {price.time: (Point._make(point), price) for point, price in pairs}
    return Card(
        ticker,
        newest.rating if newest else UNRATED,
        rule.outcome(rule.changes(prices), len(alerted)),
        article,
        tuple(others),
        opened,
        last_row,
        prices,
        tuple(_alert(row, by_time, articles) for row in reversed(alerted)) if window else (),
    )


def _points(prices: Sequence[PricePoint]) -> Iterable[tuple[int, float, int, float, int]]:
    if not prices:
        return ()
    times, usd, volumes, _ = zip(*prices, strict=True)
    seconds = (time - times[0] for time in times)
    return zip(times, usd, volumes, rule.all_changes_pct(prices), seconds, strict=True)


def _alert(
    row: Sequence[Any],
    by_time: Mapping[int, tuple[Point, PricePoint]],
    articles: Sequence[Article],
) -> Alert:
    alert = Alert(*row)
    if (found := by_time.get(int(alert.timestamp.timestamp()))) is None:
        return alert
    point, price = found
    return alert._replace(
        change_pct=point.change_pct,
        seconds=point.seconds,
        article=article_rated(articles, price.recommendation, alert.timestamp),
    )


def _detected(article: Article) -> datetime:
    return article.detected_at
