"""An old trade that TWS tells again after a second request makes no tick, row or alert."""

import asyncio
import time
from datetime import UTC, datetime

import pytest
from monitoring import CYCLE_S, rate, rows, running, tracked
from monitoring import requested as asked_for
from monitoring import until as come
from tws import HOST, buffered, came, ended, requested, serving, trade, until

from clickhouse_manager import ClickHouseManager
from ibkr_client import IBKRClient
from newshead.settings import Settings
from simulator import Gateway
from simulator.book import TimeTick
from simulator.thread import GatewayThread

# Over a real socket, for each way to a second request.


def _again(thread: GatewayThread, client: IBKRClient, way: str) -> IBKRClient:
    """Bring about a second request for ABCD; return the client that made it."""
    if way == "reconnect":
        client.disconnect_safely()
        client = IBKRClient(HOST, thread.gateway.port, memory=client.memory)
        assert client.connect_and_run(), client.failure
        client.update_subscriptions({"ABCD"})
    elif way == "1101":
        thread.call(thread.gateway.lose_subscriptions)
        thread.call(thread.gateway.send_error, 1101, "")
    else:
        req_id = client.ticker_to_reqid["ABCD"]
        thread.call(thread.gateway.send_error, 102, "Duplicate ticker ID.", req_id)
    until(lambda: len(requested(thread, "reqMktData")) == 2)
    return client


@pytest.mark.parametrize("place", list(TimeTick))
@pytest.mark.parametrize("way", ["reconnect", "1101", "102"])
def test_a_second_request_brings_no_tick_of_the_old_trade(way: str, place: TimeTick) -> None:
    with serving("ABCD") as thread:
        thread.gateway.opening_time = place
        if place is TimeTick.NEVER:
            thread.gateway.running_time = place
        trade(thread, "ABCD", 5.0, 100)
        client = IBKRClient(HOST, thread.gateway.port)
        assert client.connect_and_run(), client.failure
        client.subscribe_ticker("ABCD")
        until(came(client, "ABCD", 5.0))
        assert buffered(client, "ABCD") == [(5.0, 100)]
        client.get_and_clear_buffer()
        client = _again(thread, client, way)
        # One that follows shows that the opening burst has been read.
        trade(thread, "ABCD", 6.0, 10)
        until(came(client, "ABCD", 6.0))
        assert buffered(client, "ABCD") == [(6.0, 10)]
        client.disconnect_safely()
        assert ended(client)


def test_a_trade_of_the_gap_comes_once_with_its_own_time() -> None:
    with serving("ABCD") as thread:
        client = IBKRClient(HOST, thread.gateway.port)
        assert client.connect_and_run(), client.failure
        client.subscribe_ticker("ABCD")
        until(lambda: requested(thread, "reqMktData"))
        now = int(time.time())
        thread.call(thread.gateway.book("ABCD").record, 5.0, 100, now - 100)
        client = _again(thread, client, "reconnect")
        until(came(client, "ABCD", 5.0))
        [first] = client.get_and_clear_buffer()["ABCD"]
        client.disconnect_safely()
        thread.call(thread.gateway.book("ABCD").record, 5.5, 70, now - 50)
        client = IBKRClient(HOST, thread.gateway.port, memory=client.memory)
        assert client.connect_and_run(), client.failure
        client.update_subscriptions({"ABCD"})
        until(came(client, "ABCD", 5.5))
        [tick] = client.get_and_clear_buffer()["ABCD"]
        # TWS's clock is 50 s behind here: never before the newest row.
        assert first["timestamp"] <= tick["timestamp"] <= datetime.now(UTC)
        client.disconnect_safely()
        assert ended(client)


# The monitor, in front of the real engine.


async def _finished_slot() -> None:
    await asyncio.sleep(3 * CYCLE_S)


@pytest.mark.usefixtures("short_cycles")
@pytest.mark.parametrize("restarted", [False, True], ids=["the connection", "the monitor"])
async def test_a_window_goes_on_without_the_old_trade_after_the_loss_of(
    restarted: bool, gateway: Gateway, settings: Settings, database: ClickHouseManager
) -> None:
    rate(database, "ABCD", "BUY")
    gateway.trade("ABCD", 1.0, 100)
    async with running(settings) as monitor:
        await tracked(gateway, settings)
        await come(lambda: len(rows(database)) == 1, "the first row")
        if not restarted:
            gateway.drop()
            await come(lambda: len(asked_for(gateway)) == 2, "a second subscription")
            await _finished_slot()
            gateway.trade("ABCD", 2.0, 50)
            await come(lambda: len(rows(database)) == 2, "a second row")
            assert monitor.stats["ibkr_reconnections"] == 1
    if restarted:
        async with running(settings):
            await come(lambda: len(asked_for(gateway)) == 2, "a second subscription")
            await _finished_slot()
            gateway.trade("ABCD", 2.0, 50)
            await come(lambda: len(rows(database)) == 2, "a second row")
    # With the old trade as row 2 the baseline would be 1.00, and 2.00 an alert.
    assert [(row["price"], row["volume"]) for row in rows(database)] == [(1.0, 100), (2.0, 50)]
    assert rows(database, "news_alert") == []
