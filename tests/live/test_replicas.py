"""Two servers behind one address: one that lags behind the other, or two that share nothing."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from balancer import Balancer
from clickhouse_server import ClickHouseServer
from deadlines import DEADLINE_S
from monitoring import connected, fresh, tables_on, until

from newshead.core.rule import Rise
from newshead.core.tickers import TickerBook
from newshead.database.connection import Database, DatabaseError
from newshead.database.store import Batch, RowWriter, insert
from newshead.database.tables import PriceRow
from newshead.loop import in_background
from newshead.monitor.alerts import AlertDesk, logger
from newshead.monitor.questions import Questions
from newshead.news import reconnect
from newshead.news.monitor import NewsMonitor
from newshead.news.rating import Analyst
from newshead.settings import Settings
from simulator import MessagesServer
from simulator.alpaca import AlpacaServer, news_item
from simulator.news import NewsServer, news_message

# A tenth of the real cycle's length and of the lags that are asked about.
CYCLE_S = 0.2
ROWS = 12
RATING = ("ibkr_last_trade", "positive", "BUY", "high")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sequence[ClickHouseServer]]:
    folder = tmp_path_factory.mktemp("both")
    with (
        ClickHouseServer(folder / "first", server_id="61f0c404-5cb3-11e7-907b-a6006ad3dba0") as one,
        ClickHouseServer(
            folder / "second", server_id="61f0c404-5cb3-11e7-907b-a6006ad3dba1"
        ) as two,
    ):
        yield one, two


def settings_of(place: ClickHouseServer | Balancer) -> Settings:
    return Settings(clickhouse_host=place.host, clickhouse_port=place.port)


def repeat(ask: Callable[[], object]) -> None:
    for _ in range(4):
        ask()


def desk_on(
    database: Database,
    writer: RowWriter,
    tickers: TickerBook,
    copied: list[tuple[str, datetime]],
) -> AlertDesk:
    async def copy(alert: Rise) -> None:
        copied.append((alert.ticker, alert.timestamp))

    return AlertDesk(
        database,
        writer,
        Questions(writer),
        tickers,
        {"alerts_triggered": 0.0},
        copy=copy,
        was_halted=lambda _: False,
    )


@pytest.mark.parametrize("lag_s", [0.0, 0.1, 0.3, 1.0])
async def test_alerts_are_stored_once_each_and_none_is_missing_while_a_replica_lags(
    both: Sequence[ClickHouseServer], lag_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The two stand for replicas of one cluster, whose servers may take turns.
    monkeypatch.setattr("newshead.database.connection.is_another", lambda *_: False)
    begin = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=30)
    times = [begin + timedelta(seconds=2 * number) for number in range(ROWS)]
    with (
        fresh(both[0], settings_of(both[0])),
        fresh(both[1], settings_of(both[1])),
        Balancer(both, lag_s) as balancer,
        connected(settings_of(balancer)) as database,
    ):
        database.create_tables()
        writer = RowWriter(database, "rows", logger)
        tickers = TickerBook()
        copied: list[tuple[str, datetime]] = []
        desk = desk_on(database, writer, tickers, copied)
        await desk.restore()
        for number, at in enumerate(times):
            price = 1.0 if number < 3 else 1.1
            writer.outbox.add([PriceRow(at, each, price, 100, *RATING) for each in ("ONE", "TWO")])
            for ticker in ("ONE", "TWO"):
                tickers.await_row(ticker, int(at.timestamp()))
            await desk.store()
            await desk.check()
            await asyncio.sleep(CYCLE_S)
        async with asyncio.timeout(DEADLINE_S):
            while tickers.unjudged or not desk.idle:
                await asyncio.sleep(CYCLE_S)
                await desk.check()
        await asyncio.to_thread(balancer.settle)
        expected = Counter((ticker, at) for ticker in ("ONE", "TWO") for at in times[3:])
        assert Counter(copied) == expected
        for server in both:
            with connected(settings_of(server)) as direct:
                rows = direct.rows("SELECT ticker, timestamp FROM News.news_alert")
                assert Counter(map(tuple, rows)) == expected


@pytest.mark.parametrize(("kind", "inserts"), [("Replicated", 4), ("Shared", 4), ("", 1)])
async def test_alerts_that_the_next_monitor_does_not_see_yet_are_stored_once(
    kind: str, inserts: int, tmp_path: Path
) -> None:
    begin = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=30)
    with (
        ClickHouseServer(tmp_path / "server", kind=kind) as server,
        tables_on(server) as database,
    ):
        for number, price in enumerate((1.0, 1.0, 1.0, 1.1)):
            at = begin + timedelta(seconds=2 * number)
            rows = [PriceRow(at, ticker, price, 100, *RATING) for ticker in ("ONE", "TWO")]
            insert(database.client, Batch(rows, str(number)))
        stored = [("ONE", at), ("TWO", at)]
        for _ in range(2):
            tickers = TickerBook()
            for ticker in ("ONE", "TWO"):
                tickers.await_row(ticker, int(at.timestamp()))
            desk = desk_on(database, RowWriter(database, "rows", logger), tickers, [])
            await desk.restore()
            await desk.check()
            found = database.rows("SELECT ticker, timestamp FROM News.news_alert")
            # Those that are sent again are not stored again.
            assert sorted(map(tuple, found)) == stored
            if kind:
                # In place of a replica that does not have them yet; their tokens are known.
                database.client.command(
                    "ALTER TABLE News.news_alert DELETE WHERE 1", settings={"mutations_sync": 1}
                )
                stored = []
        sent = [sql for sql in server.statements() if sql.startswith("INSERT INTO News.news_alert")]
        assert len(sent) == inserts


@pytest.mark.parametrize("lag_s", [0.0, 0.1, 0.3])
async def test_an_article_that_comes_again_is_taken_once_while_a_replica_lags(
    both: Sequence[ClickHouseServer], lag_s: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("newshead.database.connection.is_another", lambda *_: False)
    monkeypatch.setattr(reconnect, "PAUSES_S", (0.1,))
    async with NewsServer() as stream, AlpacaServer() as alpaca, MessagesServer({}) as service:
        with (
            fresh(both[0], settings_of(both[0])),
            fresh(both[1], settings_of(both[1])),
            Balancer(both, lag_s) as balancer,
        ):
            settings = replace(
                settings_of(balancer),
                news_sources=("benzinga", "alpaca"),
                benzinga_api_key="s3cret",
                benzinga_stream_url=stream.url,
                alpaca_api_key="s3cret",
                alpaca_api_secret="s3cret",
                alpaca_stream_url=alpaca.url,
                anthropic_api_key="s3cret",
                anthropic_base_url=service.url,
                trigger_folder=tmp_path / "triggers",
            )
            analyst = Analyst(settings)
            monitor = NewsMonitor(settings, analyst, any_ticker=True, take_old=True)
            # So old that the database is asked for it.
            old = news_item("Old", ["EFGH"], article_id=8, age_s=100_000.0)
            async with in_background(monitor.start()):
                await stream.until_connected()
                await alpaca.until_subscribed()
                alpaca.publish(old, news_item("New", ["ABCD"], article_id=7))
                await until(lambda: monitor.stats["articles"] == 2, "the articles")
                alpaca.publish(old)
                await until(lambda: monitor.stats["known"] == 1, "the old one again")
                stream.publish(news_message("New", ["ABCD"], article_id=7))
                await until(lambda: monitor.stats["known"] > 1, "the other source's")
                before = monitor.stats["known"]
                stream.drop()
                await until(lambda: monitor.stats["known"] > before, "the repetition")
                await until(lambda: monitor.stats["rows_stored"] == 2, "the rows")
            await analyst.close()
            await asyncio.to_thread(balancer.settle)
            for server in both:
                with connected(settings_of(server)) as direct:
                    rows = direct.rows("SELECT headline FROM News.breaking_news ORDER BY ticker")
                    assert [headline for (headline,) in rows] == ["New", "Old"]
        assert len(service.requests) == 2
    assert len(list(settings.trigger_folder.glob("immediate_*"))) == 2


def test_servers_behind_one_address_that_share_no_rows_are_refused(
    both: Sequence[ClickHouseServer],
) -> None:
    with (
        fresh(both[0], settings_of(both[0])),
        fresh(both[1], settings_of(both[1])),
        Balancer(both) as balancer,
        connected(settings_of(balancer)) as database,
    ):
        for ask in (database.create_tables, database.warn_of_clock_difference):
            with pytest.raises(DatabaseError, match=r"leads to several .+ Replicated"):
                repeat(ask)
    with connected(settings_of(both[0])) as alone:
        repeat(alone.create_tables)
