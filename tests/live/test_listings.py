"""Tickers that TWS does not know, finds ambiguous, or lists abroad: what newshead asks for, and
what it makes of the answers."""

import logging
import time

import pytest
from monitoring import rate, roll_once, running, tracked
from monitoring import requested as requests_of
from monitoring import until as come
from tws import (
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
from ibkr_client import IBKRClient
from newshead.monitor.triggers import TriggerFolder
from newshead.settings import Settings
from simulator import Gateway, GatewayThread

PARKED_S = 0.5


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A connection that is trusted at once, and short waits."""
    caplog.set_level(logging.INFO)
    lasting(monkeypatch, distrust_s=0.0, parked_s=PARKED_S, listings_s=0.3, watch_every_s=0.02)


def code(thread: GatewayThread, number: int, text: str, req_id: int = -1) -> None:
    thread.call(thread.gateway.send_error, number, text, req_id)


def verified(thread: GatewayThread, *tickers: str) -> None:
    until(lambda: set(tickers) <= set(requested(thread, "reqContractDetails")))


def wanted(client: IBKRClient, *tickers: str) -> None:
    """Subscribe as the monitor does, again and again."""
    client.update_subscriptions(set(tickers))


@every_form
@pytest.mark.parametrize("words", ["", "La descripción del contrato es ambigua.", "合同描述不明确"])
def test_of_an_ambiguous_ticker_the_us_listing_is_asked_for_whatever_tws_s_language(
    server_version: int, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    with serving("AAPL", server_version=server_version) as thread:
        thread.gateway.ambiguous = {"AAPL"}
        thread.gateway.refusal = words
        with connected(thread) as client:
            client.subscribe_ticker("AAPL")
            until(lambda: len(requested(thread, "reqMktData")) == 2)
            trade(thread, "AAPL", 271.5, 100)
            until(came(client, "AAPL", 271.5))
            asked = [
                (r.kind, r.detail) for r in thread.gateway.requests if r.kind.startswith("reqM")
            ]
            assert asked == [("reqMktData", ""), ("reqMktData", "NASDAQ")]
            # Asked anew, it is clear already which one is meant.
            code(thread, 1101, "restored - data lost")
            until(lambda: len(requested(thread, "reqMktData")) == 3)
            trade(thread, "AAPL", 272.5, 100)
            until(came(client, "AAPL", 272.5))
            assert requested(thread, "reqContractDetails") == ["AAPL"]
            assert (
                lines(caplog, logging.INFO).count("AAPL is ambiguous: using the NASDAQ listing.")
                == 1
            )
            assert client.ticker_problems == {}


@every_form
def test_a_ticker_that_ibkr_does_not_know_is_dropped_and_not_asked_for_again(
    server_version: int, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        serving("AAPL", "MSFT", server_version=server_version) as thread,
        connected(thread, "AAPL") as client,
    ):
        thread.gateway.refusal = "Keine Wertpapierdefinition gefunden"
        wanted(client, "AAPL", "NOPE")
        until(lambda: client.get_rejected_tickers() == {"NOPE"})
        assert client.active_subscriptions == {"AAPL"}
        for _ in range(3):
            wanted(client, "AAPL", "NOPE")
            assert client.subscribe_ticker("NOPE") is False
        wanted(client, "AAPL", "NOPE", "MSFT")
        until(lambda: "MSFT" in requested(thread, "reqMktData"))
        assert requested(thread, "reqMktData") == ["AAPL", "NOPE", "MSFT"]
        assert requested(thread, "cancelMktData") == []
        (line,) = [line for line in lines(caplog) if "NOPE" in line]
        assert line.startswith("IBKR knows no US stock NOPE")
        assert client.ticker_problems["NOPE"] == line
        client.forget_session()
        wanted(client, "NOPE")
        until(lambda: requested(thread, "reqMktData").count("NOPE") == 2)


@pytest.mark.parametrize("why", ["just connected", "data is away"])
def test_a_stock_that_is_unknown_while_definitions_are_not_complete_is_asked_for_again(
    why: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if why == "just connected":
        lasting(monkeypatch, distrust_s=60.0)
    with serving("AAPL") as thread, connected(thread) as client:
        thread.gateway.undefined = {"AAPL"}
        if why == "data is away":
            code(thread, 1100, "lost")
            until(lambda: client.state is ibkr_client.ConnectionState.STALE)
        wanted(client, "AAPL")
        until(lambda: "IBKR knows no US stock AAPL, but" in "".join(lines(caplog)))
        asked_at = time.monotonic()
        thread.gateway.undefined = set()
        assert not client.get_rejected_tickers()
        until(lambda: client.subscribe_ticker("AAPL"))
        assert time.monotonic() - asked_at > PARKED_S / 2
        trade(thread, "AAPL", 5.0, 100)
        until(came(client, "AAPL", 5.0))


def test_when_definitions_are_back_an_unknown_stock_is_asked_for_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lasting(monkeypatch, distrust_s=60.0, parked_s=60.0)
    with serving("AAPL") as thread, connected(thread) as client:
        thread.gateway.undefined = {"AAPL"}
        wanted(client, "AAPL")
        until(lambda: "AAPL" not in client.active_subscriptions)
        assert not client.subscribe_ticker("AAPL")
        thread.gateway.undefined = set()
        code(thread, 2158, "Sec-def data farm connection is OK:secdefnj")
        until(lambda: client.subscribe_ticker("AAPL"))


@pytest.mark.parametrize("how", ["silence", "322"])
def test_listings_that_do_not_come_are_asked_for_until_they_do(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    with serving("AAPL") as thread, connected(thread) as client:
        gateway = thread.gateway
        gateway.ambiguous, gateway.describing = {"AAPL"}, False
        wanted(client, "AAPL")
        until(lambda: requested(thread, "reqContractDetails"))
        if how == "322":
            (req_id,) = [r.req_id for r in gateway.requests if r.kind == "reqContractDetails"]
            code(thread, 322, "Error processing request", req_id)
        until(lambda: "AAPL" not in client.active_subscriptions)
        assert client.get_rejected_tickers() == set()
        assert "IBKR does not say which listings AAPL has" in "".join(lines(caplog))
        assert "left out" not in caplog.text
        gateway.describing = True
        until(lambda: client.subscribe_ticker("AAPL"))
        until(lambda: "NASDAQ" in [r.detail for r in list(gateway.requests)])
        trade(thread, "AAPL", 5.0, 100)
        until(came(client, "AAPL", 5.0))


def test_a_lone_listing_abroad_is_dropped_and_named(caplog: pytest.LogCaptureFixture) -> None:
    with serving("AAPL", "MSFT") as thread:
        thread.gateway.abroad = {"AAPL": "LSE"}
        with connected(thread, "AAPL", "MSFT") as client:
            until(lambda: client.get_rejected_tickers() == {"AAPL"})
            (line,) = lines(caplog)
            assert line.startswith("None of the listings of AAPL is a US one (LSE)")
            until(lambda: requested(thread, "cancelMktData"))
            verified(thread, "MSFT")
            assert client.active_subscriptions == {"MSFT"}


def test_a_lone_listing_on_an_unknown_exchange_is_kept_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with serving("AAPL") as thread:
        thread.gateway.abroad = {"AAPL": "OTCLNKECN"}
        with connected(thread, "AAPL") as client:
            until(lambda: lines(caplog))
            (line,) = lines(caplog)
            assert line.startswith("AAPL is listed on OTCLNKECN, which newshead does not know")
            trade(thread, "AAPL", 5.0, 100)
            until(came(client, "AAPL", 5.0))
            assert requested(thread, "reqMktData") == ["AAPL"]


def test_a_burst_of_tickers_is_subscribed_before_any_listing_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lasting(monkeypatch, listings_s=60.0)
    tickers = [f"T{number:02}" for number in range(12)]
    with serving(*tickers) as thread, connected(thread) as client:
        with client.price_buffer_lock:
            wanted(client, *tickers)
        verified(thread, *tickers)
        kinds = [r.kind for r in thread.gateway.requests if r.kind.startswith("req")]
        assert kinds == ["reqMktData"] * 12 + ["reqContractDetails"] * 12


@pytest.mark.usefixtures("database", "short_cycles")
async def test_what_is_known_of_listings_outlives_the_connection(
    settings: Settings, gateway: Gateway
) -> None:
    gateway.ambiguous = {"ABCD"}
    async with running(settings) as monitor:
        await tracked(gateway, settings)
        await come(lambda: requests_of(gateway) == ["ABCD", "ABCD"], "the US listing")
        client = monitor.ibkr_client
        gateway.drop()
        await come(lambda: monitor.ibkr_client is not client, "a new client")
        await come(lambda: len(requests_of(gateway)) == 3, "the listing again")
        assert [r.detail for r in gateway.requests if r.kind == "reqMktData"][1:] == ["NASDAQ"] * 2
        assert requests_of(gateway, "reqContractDetails") == ["ABCD"]


@pytest.mark.usefixtures("database", "short_cycles")
async def test_an_unknown_stock_is_left_out_until_the_connection_ends(
    settings: Settings, gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(settings) as monitor:
        await tracked(gateway, settings, "NOPE")
        await come(lambda: "NOPE" not in monitor.active_tickers, "its end")
        TriggerFolder(settings.trigger_folder).write("NOPE")
        await come(lambda: "it stays left out" in caplog.text, "the answer to a second trigger")
        assert requests_of(gateway) == ["NOPE"]
        gateway.drop()
        await come(lambda: not monitor.ibkr_connected, "the connection's end")
        TriggerFolder(settings.trigger_folder).write("NOPE")
        await come(lambda: requests_of(gateway) == ["NOPE", "NOPE"], "a request on the next one")
        await come(lambda: "NOPE" not in monitor.active_tickers, "its end again")


@pytest.mark.usefixtures("short_cycles")
async def test_an_unknown_stock_is_asked_for_again_after_the_sessions_roll(
    settings: Settings,
    gateway: Gateway,
    database: ClickHouseManager,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    roll_once(monkeypatch, in_s=8)
    rate(database, "ABCD", "BUY")
    async with running(settings) as monitor:
        await tracked(gateway, settings, "NOPE")
        await come(lambda: "NOPE" not in monitor.active_tickers, "its end")
        await come(lambda: "rows of breaking_news moved" in caplog.text, "the roll")
        await tracked(gateway, settings, "NOPE")
    assert requests_of(gateway) == ["NOPE", "NOPE"]
