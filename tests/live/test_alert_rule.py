"""The alert rule over the database: random histories are judged as the rows in memory are, and
what the database has to see to. The rule by itself is tested in unit/core/test_rule.py.

`ALERT_RULE_SEED=123 pytest tests/test_alert_rule.py` repeats the histories of a run: the seed is
part of each test's name.
"""

import math
import os
import random
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest
from clickhouse_server import ClickHouseServer
from monitoring import connected

from clickhouse_manager import ClickHouseManager
from newshead.core.rule import Judged, Outcome, PricePoint, Rise, changes, judge, outcome
from newshead.database.store import Outbox
from newshead.database.tables import AlertRow, PriceRow
from newshead.settings import Settings

SEED = int(os.environ.get("ALERT_RULE_SEED") or random.SystemRandom().randrange(10**6))
HISTORIES = 300
TABLES = ("price_tracking", "news_alert", "float_list_detailed_dedup")


# Ways into the database


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseManager]:
    with connected(Settings(clickhouse_path=tmp_path_factory.mktemp("embedded"))) as manager:
        manager.create_tables()
        yield manager


@pytest.fixture(scope="module")
def over_http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseManager]:
    with ClickHouseServer(tmp_path_factory.mktemp("server")) as server:
        settings = Settings(clickhouse_host=server.host, clickhouse_port=server.port)
        with connected(settings) as manager:
            manager.create_tables()
            yield manager


@pytest.fixture
def manager(embedded: ClickHouseManager) -> ClickHouseManager:
    empty(embedded)
    return embedded


def empty(manager: ClickHouseManager) -> None:
    for table in TABLES:
        manager.client.command(f"TRUNCATE TABLE News.{table}")


def merge(manager: ClickHouseManager) -> None:
    """What the engine does in the background, now."""
    for table in TABLES:
        manager.client.command(f"OPTIMIZE TABLE News.{table} FINAL")


# Young enough to be inside the tables' TTL.
START = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=30)


def at(seconds: int) -> datetime:
    return START + timedelta(seconds=seconds)


def price_row(
    seconds: int,
    price: float,
    recommendation: str = "BUY",
    *,
    ticker: str = "AAPL",
    confidence: str = "low",
) -> PriceRow:
    return PriceRow(at(seconds), ticker, price, 100, "test", "neutral", recommendation, confidence)


def insert(manager: ClickHouseManager, *batches: list[PriceRow] | list[AlertRow]) -> None:
    """Each list is an insert of its own."""
    outbox = Outbox()
    for batch in batches:
        outbox.add(batch)
    outbox.flush(manager.client)


def insert_scores(
    manager: ClickHouseManager, scores: list[tuple[str, datetime, float | None]]
) -> None:
    if scores:
        manager.client.insert(
            "News.float_list_detailed_dedup",
            scores,
            column_names=["ticker", "scraped_at", "strength_score"],
        )


def rise_seconds(manager: ClickHouseManager, ticker: str = "AAPL") -> list[int]:
    """Seconds after START of the rows that qualify."""
    return [
        int((r.timestamp - START).total_seconds()) for r in manager.rises([ticker]) if r.qualifies
    ]


def priorities(scores: list[tuple[datetime, float | None]]) -> set[int]:
    """The priorities that a ticker's scores allow: several only if the newest are a tie."""
    if not scores:
        return {3}
    newest = max(scraped for scraped, _ in scores)
    return {
        3 if score is None else 1 if score >= 4 else 2
        for scraped, score in scores
        if scraped == newest
    }


class History(NamedTuple):
    """All that the database knows of one ticker. Rows and scores as they were inserted."""

    rows: list[PriceRow]
    alerted: list[datetime]
    scores: list[tuple[datetime, float | None]]

    def prices(self) -> list[PricePoint]:
        # The sort keeps the order within a second.
        ordered = sorted(self.rows, key=lambda row: row.timestamp)
        return [
            PricePoint(int(r.timestamp.timestamp()), r.price, r.volume, r.recommendation)
            for r in ordered
        ]

    def judged(self) -> list[Judged]:
        return judge(self.prices())

    def has_alert(self, row: Judged) -> bool:
        return datetime.fromtimestamp(row.time, UTC) in self.alerted

    def not_alerted(self) -> list[Judged]:
        return [row for row in self.judged() if row.rises and not self.has_alert(row)]

    def outcome(self) -> Outcome:
        return outcome(changes(self.prices()), len(self.alerted))


# Random histories


def random_prices(rng: random.Random, count: int) -> list[float]:
    """Prices around one level, with many at the very edges of the rule."""
    level = rng.choice([0.38, 0.40, 0.4, 0.42, 1.0, 1.57, 3.11, 10.0, 10.47, 10.5, 11.0, 250.0])
    level = level if rng.random() < 0.6 else rng.randrange(30, 1200) / 100
    edge = level * 1.05
    choices = [
        level,
        level,
        round(level * rng.uniform(0.9, 1.2), 2),
        round(level * rng.uniform(0.9, 1.2), 4),
        round(edge, 2),
        round(edge, 4),
        edge,
        math.nextafter(edge, 0),
        math.nextafter(edge, math.inf),
        level * 1.2,
        rng.choice([0.40, 11.0, math.nextafter(0.40, 0), math.nextafter(11.0, 0), 0.42, 10.99]),
    ]
    return [rng.choice(choices) for _ in range(count)]


def random_seconds(rng: random.Random, count: int) -> list[int]:
    """Times in order: some in one second, some on both sides of the end of the window."""
    now = rng.randrange(600)
    first, seconds = now, []
    for _ in range(count):
        seconds.append(now)
        now += rng.choice([0, 0, 0, 1, 2, 2, 2, 5, 13, 29])
        if rng.random() < 0.15:
            now = max(now, first + rng.choice([59, 60, 60, 61]))
    return seconds


def random_history(rng: random.Random, ticker: str, inserts: list[list[PriceRow]]) -> History:
    """Makes a history and spreads its rows over `inserts`: late ones and all."""
    count = rng.choice([0, 1, 2, 3, 3, 4, 5, 6, 8, 12, 20])
    rating = rng.choice(["BUY", "BUY", "HOLD"])
    rows: list[list[PriceRow]] = [[] for _ in inserts]
    for price, seconds in zip(random_prices(rng, count), random_seconds(rng, count), strict=True):
        if rng.random() < 0.2:
            rating = rng.choice(["BUY", "BUY", "HOLD", "SELL", "buy", ""])
        row = price_row(
            seconds, price, rating, ticker=ticker, confidence=rng.choice(["low", "high"])
        )
        rng.choice(rows).append(row)
    for own, everyones in zip(rows, inserts, strict=True):
        if rng.random() < 0.3:
            rng.shuffle(own)
        everyones.extend(own)
    inserted = [row for own in rows for row in own]
    alerted = {row.timestamp for row in inserted if rng.random() < 0.1}
    if rng.random() < 0.2:
        alerted.add(at(rng.randrange(700)))
    scraped = [START + timedelta(milliseconds=n) for n in (0, 1, 1000)]
    scores = [
        (rng.choice(scraped), rng.choice([None, 0.0, 3.999, 4.0, 4.5, -1.0]))
        for _ in range(rng.choice([0, 0, 1, 2, 4]))
    ]
    return History(inserted, sorted(alerted), scores)


def store_random_histories(manager: ClickHouseManager, rng: random.Random) -> dict[str, History]:
    empty(manager)
    inserts: list[list[PriceRow]] = [[] for _ in range(5)]
    histories = {
        (ticker := f"{rng.choice('ABC')}{n:03}{rng.choice(['', '.B', '/B'])}"): random_history(
            rng, ticker, inserts
        )
        for n in range(HISTORIES)
    }
    insert(manager, *inserts)
    alerts = [AlertRow(t, when, 3, 1.0) for t, h in histories.items() for when in h.alerted]
    insert(manager, alerts[::2], alerts[1::2])
    scores = [(t, *score) for t, h in histories.items() for score in h.scores]
    insert_scores(manager, scores[::2])
    insert_scores(manager, scores[1::2])
    return histories


def compare(manager: ClickHouseManager, histories: dict[str, History], asked: list[str]) -> None:
    found: dict[str, list[Rise]] = {ticker: [] for ticker in asked}
    rises = manager.rises(asked)
    for rise in rises:
        found[rise.ticker].append(rise)
    assert [r.timestamp for r in rises] == sorted(r.timestamp for r in rises)
    for ticker in asked:
        expected = histories[ticker].not_alerted()
        assert [
            (r.timestamp, r.price, r.change_pct, r.seconds_elapsed, r.qualifies, r.held_back)
            for r in found[ticker]
        ] == [
            (
                datetime.fromtimestamp(j.time, UTC),
                j.price,
                j.change_pct,
                j.seconds_elapsed,
                j.qualifies,
                j.held_back,
            )
            for j in expected
        ], f"{ticker}: {histories[ticker]}"
        given = {r.alert for r in found[ticker]}
        assert len(given) <= 1
        assert given <= priorities(histories[ticker].scores), f"{ticker}: {histories[ticker]}"
    assert manager.outcomes(asked) == {
        ticker: histories[ticker].outcome() for ticker in asked if histories[ticker].rows
    }


def check_random_histories(manager: ClickHouseManager, seed: str) -> None:
    rng = random.Random(seed)
    histories = store_random_histories(manager, rng)
    compare(manager, histories, list(histories))
    compare(manager, histories, rng.sample(list(histories), 20))
    merge(manager)
    compare(manager, histories, list(histories))
    # The histories are worth something only if they reach all of the rule.
    judged = [(h, j) for h in histories.values() for j in h.judged()]
    rising = [(h, j) for h, j in judged if j.rises]
    reached = {
        "qualify": sum(j.qualifies for _, j in rising),
        "held back": sum(j.held_back for _, j in rising),
        "out of the range": sum(not j.in_range for _, j in rising),
        "had their alert": sum(h.has_alert(j) for h, j in rising),
        "too late": sum(j.seconds_elapsed > 60 and j.change_pct >= 5 for _, j in judged),
        "near the edge": sum(j.counts and abs(j.change_pct - 5) < 1e-9 for _, j in judged),
        "on the last second": sum(j.seconds_elapsed == 60 for _, j in rising),
    }
    assert min(reached.values()) > 0, reached


@pytest.mark.parametrize("seed", [f"{SEED}-{batch}" for batch in range(3)])
def test_random_histories_are_judged_as_their_rows_in_memory(
    embedded: ClickHouseManager, seed: str
) -> None:
    check_random_histories(embedded, seed)


@pytest.mark.parametrize("seed", [f"{SEED}-http"])
def test_random_histories_on_a_server_are_judged_as_their_rows_in_memory(
    over_http: ClickHouseManager, seed: str
) -> None:
    check_random_histories(over_http, seed)


@pytest.mark.parametrize("seed", [f"{SEED}-odd"])
def test_no_price_however_odd_is_spared_the_rule_by_mistake(
    manager: ClickHouseManager, seed: str
) -> None:
    """`rises` leaves out the tickers that did not move, `outcomes` none."""
    rng = random.Random(seed)
    # Neither NaN nor -0.0, which the client does not let through: what least() makes of them
    # depends on whether the engine has compiled the expression by then.
    odd = [math.inf, 0.0, -1.0, -1.05, -0.95, 5e-324, 1e-310, 1e308]
    prices = [*odd, 1.0, 1.04, math.nextafter(1.05, 0), 1.05, 2.0]
    tickers = [f"T{number}" for number in range(400)]
    insert(
        manager,
        [
            price_row(step, rng.choice(prices), ticker=ticker)
            for ticker in tickers
            for step in range(rng.choice([2, 3, 4, 6]))
        ],
    )
    rising = Counter(rise.ticker for rise in manager.rises(tickers))
    expected = {ticker: outcome.rises for ticker, outcome in manager.outcomes(tickers).items()}
    assert {ticker: rising[ticker] for ticker in tickers} == expected
    assert 0 < sum(count > 0 for count in expected.values()) < len(tickers)


# Named examples


@pytest.mark.parametrize("merged", [False, True], ids=["as inserted", "merged"])
def test_rows_of_one_second_count_in_the_order_they_were_inserted(
    manager: ClickHouseManager, merged: bool
) -> None:
    # The second and third decide the baseline; in any other order it would not be 4.0. As the
    # sorting key is equal, neither price nor rating may decide.
    inserted = [5.0, 4.0, 9.0, 3.0, 8.0, 2.0, 7.0, 1.0]
    insert(manager, *([price_row(0, price)] for price in inserted[:3]))
    insert(manager, [price_row(0, price) for price in inserted[3:]])
    if merged:
        merge(manager)
    assert [(r.price, r.change_pct) for r in manager.rises(["AAPL"])] == [
        (price, (price - 4.0) / 4.0 * 100) for price in (9.0, 8.0, 7.0)
    ]


def test_a_late_row_takes_its_place_in_time(manager: ClickHouseManager) -> None:
    insert(manager, [price_row(s, p) for s, p in [(0, 2.0), (4, 2.0), (6, 2.0), (8, 2.05)]])
    assert rise_seconds(manager) == []
    insert(manager, [price_row(2, 1.9)])
    # The third row, at the fourth second, is the first of those 5.3 % above the late one.
    assert rise_seconds(manager) == [4, 6, 8]


def test_a_row_that_has_its_alert_gives_no_second_one(manager: ClickHouseManager) -> None:
    rows = [price_row(s, p) for s, p in [(0, 1), (2, 1), (4, 1), (6, 2), (8, 2)]]
    insert(manager, rows, [row._replace(ticker="MSFT") for row in rows])
    insert(manager, [AlertRow("AAPL", at(6), 3, 2.0)])
    assert rise_seconds(manager) == [8]
    assert rise_seconds(manager, "MSFT") == [6, 8]
    insert(manager, [AlertRow("AAPL", at(8), 3, 2.0)])
    assert rise_seconds(manager) == []
    assert manager.outcomes(["AAPL"])["AAPL"].alerts == 2


@pytest.mark.parametrize(
    ("scores", "priority"),
    [
        ([], 3),
        ([4.0], 1),
        ([math.nextafter(4.0, 0)], 2),
        ([0.0], 2),
        ([None], 3),
        ([5.0, 1.0], 2),
        ([1.0, 5.0], 1),
        ([5.0, None], 3),
        ([None, 5.0], 1),
    ],
)
def test_the_newest_score_gives_the_priority_and_multiplies_nothing(
    manager: ClickHouseManager, scores: list[float | None], priority: int
) -> None:
    insert(manager, [price_row(n, p) for n, p in enumerate([1.0, 1.0, 1.0, 2.0])])
    insert_scores(manager, [("MSFT", START, 9.0)])
    insert_scores(manager, [("AAPL", at(n), score) for n, score in enumerate(scores)])
    assert [rise.alert for rise in manager.rises(["AAPL"])] == [priority]


def test_only_the_tickers_asked_for_are_judged(manager: ClickHouseManager) -> None:
    for ticker in ("AAPL", "MSFT"):
        prices = enumerate([1.0, 1.0, 1.0, 2.0])
        insert(manager, [price_row(n, p, ticker=ticker) for n, p in prices])
    assert {r.ticker for r in manager.rises(["MSFT", "NONE"])} == {"MSFT"}
    assert set(manager.outcomes(["MSFT", "NONE"])) == {"MSFT"}
    assert manager.rises([]) == []
    assert manager.outcomes([]) == {}
