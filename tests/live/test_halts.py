"""Halts, data that is not live and the day's figures: told, shown, and never made rows of."""

import logging

import pytest
from monitoring import rate, rows, running, shorten_windows, tracked
from monitoring import until as come
from tws import (
    buffered,
    came,
    connected,
    every_form,
    lasting,
    lines,
    requested,
    serving,
    trade,
    until,
)

import ibkr_client
from clickhouse_manager import ClickHouseManager
from dashboard import queries
from ibkr_client import IBKRClient
from newshead.monitor import keeper
from newshead.settings import Settings
from simulator import Gateway
from simulator.encode import Encoder


@every_form
def test_a_halt_and_its_end_are_told_at_once(
    server_version: int, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        serving("AAPL", server_version=server_version) as thread,
        connected(thread, "AAPL") as client,
    ):
        for kind in (1, 0, 2, 0):
            thread.call(thread.gateway.halt, "AAPL", kind)
        trade(thread, "AAPL", 5.0, 100)
        until(came(client, "AAPL", 5.0))
        assert lines(caplog) == [
            "AAPL is halted: news pending.",
            "AAPL trades again.",
            "AAPL is halted: volatility pause.",
            "AAPL trades again.",
        ]
        assert client.get_conditions()["AAPL"].day_volume > 0


def test_a_halted_ticker_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ibkr_client, "in_trading_hours", lambda _: True)
    lasting(monkeypatch, quiet_s=0.2, watch_every_s=0.02)
    with serving("AAPL", "MSFT") as thread:
        thread.call(thread.gateway.book("AAPL").halt, 1)
        trade(thread, "MSFT", 6.0, 100)
        with connected(thread, "AAPL", "MSFT"):
            # The other one is asked for again and again.
            until(lambda: requested(thread, "reqMktData").count("MSFT") >= 3)
            assert requested(thread, "reqMktData").count("AAPL") == 1


@every_form
@pytest.mark.parametrize("data_type", [2, 3, 4])
def test_prices_of_data_that_is_not_live_are_left_out_until_it_is(
    data_type: int, server_version: int, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        serving("AAPL", "MSFT", server_version=server_version) as thread,
        connected(thread, "AAPL", "MSFT") as client,
    ):
        for _ in range(2):
            thread.call(thread.gateway.serve, "AAPL", data_type)
        trade(thread, "AAPL", 5.0, 100)
        trade(thread, "MSFT", 6.0, 100)
        until(came(client, "MSFT", 6.0))
        assert buffered(client, "AAPL") == []
        (line,) = lines(caplog)
        assert line.startswith("TWS serves AAPL ")
        assert "IBKR_MARKET_DATA_TYPE=3" in line
        thread.call(thread.gateway.serve, "AAPL", 1)
        trade(thread, "AAPL", 7.0, 100)
        until(came(client, "AAPL", 7.0))


def test_late_ticks_that_nobody_asked_for_are_told_once_and_count_for_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with serving("AAPL", "MSFT") as thread, connected(thread, "AAPL", "MSFT") as client:
        encoder, req_id = Encoder(225), client.ticker_to_reqid["AAPL"]
        for _ in range(3):
            thread.call(thread.gateway.raw, encoder.tick_price(req_id, 68, 5.0, "100"))
        trade(thread, "MSFT", 6.0, 100)
        until(came(client, "MSFT", 6.0))
        assert buffered(client, "AAPL") == []
        assert [line.split(":")[0] for line in lines(caplog)] == ["TWS serves AAPL delayed data"]
        assert client.get_refusals().keys() == {"AAPL"}


@pytest.mark.parametrize("data_type", [1, 3])
def test_data_of_a_kind_that_was_asked_for_counts(data_type: int) -> None:
    with serving("AAPL") as thread:
        client = IBKRClient("127.0.0.1", thread.gateway.port, market_data_type=3)
        assert client.connect_and_run()
        try:
            client.subscribe_ticker("AAPL")
            thread.call(thread.gateway.serve, "AAPL", data_type)
            until(lambda: len(thread.gateway.requests) >= 3)
            trade(thread, "AAPL", 5.0, 100)
            until(came(client, "AAPL", 5.0))
        finally:
            client.disconnect_safely()


@pytest.mark.usefixtures("short_cycles")
async def test_what_tws_says_of_a_ticker_is_stored_when_it_changes_and_shown_on_its_card(
    settings: Settings,
    gateway: Gateway,
    database: ClickHouseManager,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    shorten_windows(monkeypatch, 8)
    rate(database, "ABCD", "BUY")
    gateway.book("ABCD").previous_close = 1.5
    async with running(settings):
        await tracked(gateway, settings, "EFGH")
        # Of which nothing is known, no news and no trade.
        await come(lambda: [card.ticker for card in queries.cards(database)][:1] == ["EFGH"], "it")
        await tracked(gateway, settings)
        gateway.trade("ABCD", 2.0, 100)
        gateway.halt("ABCD", 2)

        def newest() -> dict[str, object]:
            found = [row for row in rows_of_status(database) if row["ticker"] == "ABCD"]
            return found[-1] if found else {}

        await come(lambda: newest().get("halted") == 2, "the halt's row")
        assert newest()["previous_close"] == 1.5
        assert newest()["day_volume"] == 100
        assert newest()["data_type"] == 1
        (card,) = queries.cards(database, ["ABCD"])
        assert "halted (volatility pause): " in card.reason(queries.clock(database))
        gateway.halt("ABCD", 0)
        await come(lambda: newest().get("halted") == 0, "its end's row")
        number = len(rows_of_status(database))
        await come(lambda: "Window of ABCD ended: " in caplog.text, "the outcome")
        assert "; trading was halted meanwhile." in caplog.text
        assert len(rows_of_status(database)) == number


def rows_of_status(database: ClickHouseManager) -> list[dict[str, object]]:
    found = database.client.query("SELECT * FROM News.ticker_status ORDER BY timestamp")
    return list(found.named_results())


@pytest.mark.usefixtures("short_cycles")
async def test_the_parts_states_are_stored_at_each_change_with_what_is_wrong(
    settings: Settings,
    gateway: Gateway,
    database: ClickHouseManager,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keeper, "RETRY_S", 0.2)

    def states(part: str) -> list[tuple[str, str]]:
        found = [row for row in rows(database, "part_status") if row["part"] == part]
        return [(row["state"], row["reason"]) for row in found]

    async with running(settings):
        await come(lambda: ("ok", "") in states("market data"), "the first state")
        assert states("ibkr")[-1] == ("ok", "")
        gateway.send_error(2103, "Market data farm connection is broken:usfarm")
        await come(lambda: states("market data")[-1][0] == "lost", "the farm's loss")
        assert "usfarm" in states("market data")[-1][1]
        gateway.send_error(2104, "Market data farm connection is OK:usfarm")
        await come(lambda: states("market data")[-1][0] == "ok", "the farm's return")
        await gateway.stop()
        await come(lambda: states("ibkr")[-1][0] == "lost", "the connection's loss")
        assert states("market data")[-1][0] == "lost"
        await gateway.start()
        await come(lambda: states("ibkr")[-1][0] == "ok", "the connection's return")
    row = next(row for row in rows(database, "part_status") if row["part"] == "ibkr")
    assert row["instance"]
    assert row["counts"]["reconnects"] == 0
