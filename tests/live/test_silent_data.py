"""No data although TWS answers: what newshead asks for, and when it makes a new connection."""

import asyncio
import logging
from itertools import pairwise

import pytest
from monitoring import requested, rows, running, tracked, until
from tws import lasting

import ibkr_client
from clickhouse_manager import ClickHouseManager
from newshead.monitor import keeper
from newshead.settings import Settings
from simulator import Gateway

QUIET_S = 0.5

pytestmark = pytest.mark.usefixtures("short_cycles", "database")


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """An open market, and a rule that waits for tenths of a second."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(ibkr_client, "in_trading_hours", lambda _: True)
    monkeypatch.setattr(keeper, "SIGHT_CHECK_S", 0.02)
    monkeypatch.setattr(keeper, "RETRY_S", 0.2)
    lasting(monkeypatch, watch_every_s=0.02, quiet_s=QUIET_S, snapshot_s=1.0, reference_s=0.5)


async def test_data_that_stopped_without_a_code_comes_again_after_a_new_request(
    settings: Settings, gateway: Gateway, database: ClickHouseManager
) -> None:
    async with running(settings) as monitor:
        await tracked(gateway, settings)
        gateway.trade("ABCD", 2.0, 100)
        await until(lambda: rows(database), "the first row")
        client = monitor.ibkr_client
        gateway.lose_subscriptions()
        await until(lambda: requested(gateway).count("ABCD") >= 2, "a new request")
        gateway.trade("ABCD", 2.1, 100)
        await until(lambda: len(rows(database)) == 2, "the second row")
        assert monitor.ibkr_client is client
        assert "SPY" not in requested(gateway)


async def test_a_tws_that_serves_no_data_is_blind_and_gets_one_new_connection(
    settings: Settings,
    gateway: Gateway,
    database: ClickHouseManager,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running(settings) as monitor:
        client = monitor.ibkr_client
        gateway.serving = False
        await tracked(gateway, settings)
        await until(lambda: monitor.ibkr_client is not client, "a new connection")
        assert requested(gateway)[:3] == ["ABCD", "ABCD", "SPY"]
        await until(lambda: "BLIND" in caplog.text, "the warning")
        await until(lambda: monitor.ibkr_connected, "the connection")
        client = monitor.ibkr_client
        # Long enough for the whole way to a further new connection.
        await until(lambda: requested(gateway).count("SPY") >= 2, "the reference again")
        await asyncio.sleep(1.0)
        assert monitor.ibkr_client is client
        assert caplog.text.count("BLIND") == 1
        assert "serves no market data" in caplog.text
        gateway.serving = True
        await until(lambda: "flowing again" in caplog.text, "the line")
        gateway.trade("ABCD", 2.0, 100)
        await until(lambda: rows(database), "a row")


@pytest.mark.parametrize("answer", ["data", "a code"])
async def test_an_answer_about_the_reference_keeps_the_connection_and_makes_no_row(
    answer: str,
    settings: Settings,
    gateway: Gateway,
    database: ClickHouseManager,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # A stock without any trade so far: its requests bring nothing at all.
    if answer == "data":
        settings = Settings(**{**settings.__dict__, "ibkr_reference": "EFGH"})
        gateway.trade("EFGH", 500.0, 100)
    async with running(settings) as monitor:
        client = monitor.ibkr_client
        await tracked(gateway, settings)
        reference = settings.ibkr_reference
        await until(lambda: requested(gateway).count(reference) >= 1, "the reference")
        await until(lambda: "No trades in ABCD" in caplog.text, "the line")
        await asyncio.sleep(2 * QUIET_S)
        assert monitor.ibkr_client is client
        assert "BLIND" not in caplog.text
        assert rows(database) == []
        if answer == "data":
            assert "cancelMktData" in {r.kind for r in gateway.requests}


async def test_a_quiet_stock_costs_ever_fewer_requests_and_no_reference(
    settings: Settings, gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    gateway.trade("ABCD", 2.0, 100)
    async with running(settings) as monitor:
        client = monitor.ibkr_client
        await tracked(gateway, settings)
        await until(lambda: requested(gateway).count("ABCD") >= 4, "three further requests")
        times = [r.at for r in gateway.requests if r.kind == "reqMktData"]
        pauses = [b - a for a, b in pairwise(times)]
        assert pauses[0] >= QUIET_S
        assert pauses[1] >= 2 * QUIET_S
        assert pauses[2] >= 4 * QUIET_S
        assert "SPY" not in requested(gateway)
        assert "BLIND" not in caplog.text
        assert monitor.ibkr_client is client


async def test_without_a_reference_none_is_requested(
    settings: Settings, gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(**{**settings.__dict__, "ibkr_reference": ""})
    async with running(settings):
        gateway.serving = False
        await tracked(gateway, settings)
        await until(lambda: "BLIND" in caplog.text, "the warning")
        assert set(requested(gateway)) == {"ABCD"}


async def test_nothing_is_asked_for_while_the_market_is_closed(
    settings: Settings, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ibkr_client, "in_trading_hours", lambda _: False)
    async with running(settings):
        await tracked(gateway, settings)
        await asyncio.sleep(4 * QUIET_S)
        assert requested(gateway) == ["ABCD"]
