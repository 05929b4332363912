"""Two servers behind one address: one that lags behind the other, or two that share nothing."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from balancer import Balancer
from clickhouse_server import ClickHouseServer
from monitoring import DEADLINE_S, connected, fresh

from newshead.core.tickers import TickerBook
from newshead.database.connection import DatabaseError
from newshead.database.store import RowWriter
from newshead.database.tables import PriceRow
from newshead.monitor.alerts import AlertDesk, logger
from newshead.monitor.questions import Questions
from newshead.settings import Settings

# A tenth of the real cycle's length and of the lags that are asked about.
CYCLE_S = 0.2
ROWS = 12


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

        async def copy(alert: object) -> None:
            copied.append((alert.ticker, alert.timestamp))  # type: ignore[attr-defined]

        desk = AlertDesk(
            database,
            writer,
            Questions(writer),
            tickers,
            {"alerts_triggered": 0.0},
            copy=copy,
            was_halted=lambda _: False,
        )
        await desk.restore()
        for number, at in enumerate(times):
            price = 1.0 if number < 3 else 1.1
            rating = ("ibkr_last_trade", "positive", "BUY", "high")
            writer.outbox.add([PriceRow(at, each, price, 100, *rating) for each in ("ONE", "TWO")])
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
