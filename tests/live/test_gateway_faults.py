"""What TWS does to newshead: silence, restarts, codes, nonsense, floods; and what newshead makes
of it, over real sockets and, where the monitor matters, in front of the real engine.

That bursts which end on a full read are delivered whole, and what each code's line says, is
shown in test_ibkr_client.py; that a gateway which is not there at the start ends price_checker.py
in test_commands.py.
"""

import asyncio
import contextlib
import itertools
import logging
import re
import resource
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from deadlines import DEADLINE_S
from ibapi.message import IN
from monitoring import rate, rows, tracked
from monitoring import until as come
from tws import (
    EXPECTED,
    HOST,
    buffered,
    came,
    connected,
    ended,
    every_form,
    lasting,
    lines,
    requested,
    serving,
    trade,
    until,
    versions,
)

import ibkr_client
import price_checker
from clickhouse_manager import ClickHouseManager
from ibkr_client import ConnectionState, GatewayError, IBKRClient
from newshead.core import times
from newshead.loop import in_background
from newshead.monitor import keeper, sight
from newshead.monitor.triggers import TriggerFolder
from newshead.settings import Settings
from newshead.tws import codes as ibkr_codes
from newshead.tws import wire as tws_socket
from newshead.tws.codes import CODES, Reaction
from price_checker import ContinuousPriceMonitor
from simulator import Gateway, GatewayThread, Handshake
from simulator.book import DELAYED
from simulator.encode import Encoder
from simulator.wire import frame, glue

LAST, LAST_SIZE = 4, 5
OWN_WORDS = "TWS's own words"


def test_the_waits_that_the_tests_shorten_are_as_promised() -> None:
    # A watch and a breath may pass before each step of the heartbeat.
    steps_s = 2 * (ibkr_client.DURATIONS.watch_every_s + tws_socket.BREATH_S)
    assert ibkr_client.DURATIONS.heartbeat_s + ibkr_client.DURATIONS.answer_s + steps_s < 30
    assert ibkr_client.DURATIONS.connect_timeout_s < 15
    assert ibkr_client.DURATIONS.ready_timeout_s == 60
    assert (keeper.RETRY_S, keeper.MAX_RETRY_S) == (3.0, 60.0)
    assert (times.SHORT_OUTAGE_S, times.SHORT_OUTAGE_PAUSE_S) == (300.0, 5.0)
    assert sight.BLIND_S == 15.0
    assert CODES[10197].again_s == 15 * 60


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if request.node.name == test_the_waits_that_the_tests_shorten_are_as_promised.__name__:
        return
    for module, name, seconds in (
        (tws_socket, "BREATH_S", 0.02),
        (price_checker, "CYCLE_S", 0.5),
        (keeper, "CONNECTION_CHECK_S", 0.02),
        (keeper, "SIGHT_CHECK_S", 0.02),
        (keeper, "RETRY_S", 0.3),
        (keeper, "MAX_RETRY_S", 0.9),
    ):
        monkeypatch.setattr(module, name, seconds)
    lasting(monkeypatch, watch_every_s=0.02, recovery_s=0.6, parked_s=0.3)


@pytest.fixture(autouse=True)
def market_hours(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Opens (True) or closes the market, whatever the time is; it is closed at first."""

    def set_open(is_open: bool) -> None:
        for module in (ibkr_client,):
            monkeypatch.setattr(module, "in_trading_hours", lambda _: is_open)

    set_open(False)
    return set_open


@pytest.fixture(autouse=True)
def _everything_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    for name in ("ibkr_client", "price_checker"):
        caplog.set_level(logging.DEBUG, logger=name)


def logged(
    caplog: pytest.LogCaptureFixture, part: str, level: int = logging.WARNING
) -> list[logging.LogRecord]:
    """The records, from a level on, whose line has a part."""
    return [
        record
        for record in list(caplog.records)
        if part in record.getMessage() and record.levelno >= level
    ]


def asked_at(gateway: Gateway, kind: str, symbol: str = "") -> list[float]:
    return [
        r.at
        for r in list(gateway.requests)
        if r.kind == kind and (not symbol or r.symbol == symbol)
    ]


def req_ids(gateway: Gateway) -> list[int]:
    return [r.req_id for r in list(gateway.requests) if r.kind == "reqMktData"]


def gaps(times: list[float]) -> list[float]:
    return [after - before for before, after in itertools.pairwise(times)]


@contextmanager
def ticking(thread: GatewayThread, *tickers: str) -> Iterator[None]:
    """Trades of some tickers, again and again, in the background."""
    done = threading.Event()

    def play() -> None:
        number = 0
        while not done.wait(0.01):
            number += 1
            for ticker in tickers:
                trade(thread, ticker, 10 + number % 100, 1)

    player = threading.Thread(target=play)
    player.start()
    try:
        yield
    finally:
        done.set()
        player.join()


def send_code(thread: GatewayThread, number: int, req_id: int = -1, text: str = OWN_WORDS) -> None:
    thread.call(thread.gateway.send_error, number, text, req_id)


# Silence with the socket open


@pytest.mark.parametrize("state", [ConnectionState.READY, ConnectionState.STALE])
def test_a_gateway_gone_silent_is_noticed_by_the_heartbeat_in_every_state(
    state: ConnectionState, monkeypatch: pytest.MonkeyPatch
) -> None:
    lasting(monkeypatch, heartbeat_s=0.5, answer_s=1.0)
    with serving("AAPL") as thread, connected(thread, "AAPL") as client:
        if state is ConnectionState.STALE:
            send_code(thread, 1100)
        until(lambda: client.state is state)
        thread.gateway.silent = True
        began = time.monotonic()
        assert ended(client)
        print(f"noticed after {time.monotonic() - began:.2f} s of 0.5 + 1.0 s")  # noqa: T201
        asked = asked_at(thread.gateway, "reqCurrentTime")
        assert asked
        assert sum(at > began for at in asked) <= 1
        assert "No message from TWS" in str(client.failure)
        assert client.failure is not None
        assert client.failure.accepted


@versions(176, 225)
def test_a_quiet_gateway_that_answers_is_kept(
    server_version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lasting(monkeypatch, heartbeat_s=0.1, answer_s=15.0)
    with serving(server_version=server_version) as thread, connected(thread) as client:
        until(lambda: len(asked_at(thread.gateway, "reqCurrentTime")) >= 5)
        assert client.connected


@pytest.mark.parametrize("more", [False, True], ids=["then quiet", "then a trickle of ticks"])
def test_a_wrong_length_that_swallows_all_messages_is_noticed_by_the_heartbeat(
    more: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lasting(monkeypatch, heartbeat_s=0.3, answer_s=0.6)
    # Longer than any pause of the trickle.
    monkeypatch.setattr(tws_socket, "BREATH_S", 1.0)
    with serving("AAPL") as thread, connected(thread, "AAPL") as client:
        thread.call(thread.gateway.raw, (1_000_000).to_bytes(4, "big"))
        with ticking(thread, *(["AAPL"] if more else [])):
            assert ended(client)
        assert "No message from TWS" in str(client.failure)


# A gateway that answers and is not ready


PENDING = "answered but takes no requests yet"


@every_form
def test_a_gateway_that_has_answered_is_waited_for_by_whoever_is_patient(
    server_version: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lasting(monkeypatch, connect_timeout_s=0.3, heartbeat_s=0.1, answer_s=0.1)
    with serving("AAPL", server_version=server_version) as thread:
        thread.gateway.handshake = Handshake.PENDING
        client = IBKRClient(HOST, thread.gateway.port)
        answers: list[bool] = []
        attempt = threading.Thread(
            target=lambda: answers.append(client.connect_and_run(patient=True))
        )
        attempt.start()
        until(lambda: logged(caplog, PENDING))
        # Long enough for a heartbeat to find TWS silent.
        attempt.join(1.0)
        assert answers == []
        thread.call(thread.gateway.accept)
        attempt.join(DEADLINE_S)
        assert answers == [True]
        (line,) = lines(caplog)
        for part in ("pop-up", "logged in", "Waiting for up to 60 s"):
            assert part in line
        client.disconnect_safely()
        assert ended(client)


@pytest.mark.parametrize("patient", [False, True])
def test_a_gateway_that_has_answered_is_given_up_after_the_caller_s_time_with_one_line(
    patient: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lasting(monkeypatch, connect_timeout_s=0.2, ready_timeout_s=0.3 if patient else 3600.0)
    with serving() as thread:
        thread.gateway.handshake = Handshake.PENDING
        client = IBKRClient(HOST, thread.gateway.port)
        assert client.connect_and_run(patient=patient) is False
        assert ended(client)
        assert PENDING in str(client.failure)
        assert len(lines(caplog)) == 1


# Codes


@pytest.mark.parametrize(
    "number",
    [
        number
        for number, (level, reaction, _) in EXPECTED.items()
        if level > logging.INFO
        # Those that end the connection come once, and so do the ends of an outage.
        and reaction
        not in (
            Reaction.END_CONNECTION,
            Reaction.STOP,
            Reaction.RESUBSCRIBE_ALL,
            Reaction.RESUBSCRIBE_SILENT,
        )
    ],
)
def test_a_code_that_is_repeated_is_told_once(
    number: int, caplog: pytest.LogCaptureFixture
) -> None:
    with serving("AAPL", "MSFT") as thread, connected(thread, "AAPL", "MSFT") as client:
        req_id = client.ticker_to_reqid["AAPL"] if "AAPL" in EXPECTED[number][2] else -1
        for _ in range(20):
            send_code(thread, number, req_id)
        trade(thread, "MSFT", 478.0, 100)
        until(came(client, "MSFT", 478.0))
        assert len(logged(caplog, f"IBKR code {number}: ")) == 1
        assert len(logged(caplog, f"IBKR code {number}: ", logging.DEBUG)) == 20


@pytest.mark.parametrize(
    "number",
    [
        number
        for number, (_, reaction, _) in EXPECTED.items()
        if reaction in (Reaction.PARK_TICKER, Reaction.NO_LINE)
    ],
)
def test_a_parked_ticker_is_asked_for_again_after_a_while_and_not_before(number: int) -> None:
    with serving("AAPL") as thread, connected(thread, "AAPL") as client:
        first_id = client.ticker_to_reqid["AAPL"]
        trade(thread, "AAPL", 270.0, 100)
        send_code(thread, number, first_id)
        until(lambda: not client.active_subscriptions)
        parked_at = time.monotonic()
        assert buffered(client, "AAPL") == [(270.0, 100)]

        def asked_again() -> bool:
            client.update_subscriptions({"AAPL"})  # as each cycle of the monitor does
            return len(requested(thread, "reqMktData")) > 1

        until(asked_again)
        assert time.monotonic() - parked_at > ibkr_client.DURATIONS.parked_s - 0.1
        assert client.ticker_to_reqid["AAPL"] != first_id
        trade(thread, "AAPL", 271.5, 100)
        until(came(client, "AAPL", 271.5))


def test_a_request_id_in_use_is_replaced_and_the_one_that_has_it_not_cancelled() -> None:
    with serving("AAPL") as thread, connected(thread, "AAPL") as client:
        first_id = client.ticker_to_reqid["AAPL"]
        send_code(thread, 102, first_id)
        until(lambda: len(requested(thread, "reqMktData")) == 2)
        assert client.ticker_to_reqid["AAPL"] != first_id
        assert requested(thread, "cancelMktData") == []
        trade(thread, "AAPL", 271.5, 100)
        until(came(client, "AAPL", 271.5))


def test_request_ids_that_are_all_in_use_are_not_asked_for_without_end() -> None:
    with serving("AAPL", "MSFT") as thread, connected(thread, "AAPL", "MSFT") as client:
        for _ in range(10):
            if (req_id := client.ticker_to_reqid.get("AAPL")) is None:
                break
            send_code(thread, 102, req_id)
            trade(thread, "MSFT", price := time.time(), 1)
            until(came(client, "MSFT", price))
        assert requested(thread, "reqMktData").count("AAPL") <= 2


def test_a_ticker_whose_request_is_invalid_is_not_asked_for_again() -> None:
    with serving("AAPL", "MSFT") as thread, connected(thread, "AAPL") as client:
        send_code(thread, 321, client.ticker_to_reqid["AAPL"])
        until(lambda: client.get_rejected_tickers() == {"AAPL"})
        client.update_subscriptions({"AAPL", "MSFT"})
        until(lambda: requested(thread, "reqMktData") == ["AAPL", "MSFT"])
        assert client.active_subscriptions == {"MSFT"}


def test_code_100_slows_down() -> None:
    symbols = [f"T{number:02}" for number in range(25)]
    with serving("AAPL", *symbols) as thread, connected(thread, "AAPL") as client:
        send_code(thread, 100)
        trade(thread, "AAPL", 271.5, 100)
        until(came(client, "AAPL", 271.5))
        client.update_subscriptions({"AAPL", *symbols})
        until(lambda: len(requested(thread, "reqMktData")) == 26)
        at = asked_at(thread.gateway, "reqMktData")[1:]
        # 25 messages, ten of them at once. At full speed it is less than half of it.
        assert at[-1] - at[0] > (25 - 10) / tws_socket.SLOW_SENDS_PER_S - 0.3


def test_tickers_without_a_subscription_for_data_are_not_asked_for_while_others_are(
    monkeypatch: pytest.MonkeyPatch, market_hours: Callable[[bool], None]
) -> None:
    market_hours(True)
    lasting(monkeypatch, silent_s=0.2)
    unserved = {f"A{n}": n for n, (_, r, _) in EXPECTED.items() if r is Reaction.NO_DATA}
    assert set(unserved.values()) == {354, 10089, 10168, 10186}
    with (
        serving("MSFT", "SILENT", *unserved) as thread,
        connected(thread, "MSFT", "SILENT", *unserved) as client,
    ):
        for ticker, number in unserved.items():
            send_code(thread, number, client.ticker_to_reqid[ticker])
        until(lambda: client.get_ticker_problems().keys() == unserved.keys())
        before = len(thread.gateway.requests)
        with ticking(thread, "MSFT"):
            until(lambda: requested(thread, "reqMktData").count("SILENT") >= 3)
        again = {r.symbol for r in thread.gateway.requests[before:] if r.kind == "reqMktData"}
        # An ask that was on its way when its code came counts for nothing.
        assert again - {"SILENT"} == set()
        assert client.active_subscriptions == {"MSFT", "SILENT", *unserved}


def test_a_competing_session_is_told_again_only_after_its_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(ibkr_codes.CODES, 10197, CODES[10197]._replace(again_s=1.0))
    with serving("AAPL", "MSFT") as thread, connected(thread, "AAPL", "MSFT") as client:
        msft, aapl = client.ticker_to_reqid["MSFT"], client.ticker_to_reqid["AAPL"]

        def told_twice() -> bool:
            send_code(thread, 10197, msft)
            send_code(thread, 10197, aapl)
            return len(logged(caplog, "IBKR code 10197")) >= 2

        until(told_twice)
        assert gaps([record.created for record in logged(caplog, "IBKR code 10197")])[0] > 0.9


# Outages between TWS and IBKR


def test_where_no_line_is_free_the_newest_headline_gets_that_of_a_stock_without_a_trade(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with serving("OPEN", "OLD", "MID", "NEW") as thread, connected(thread, "OPEN") as client:
        thread.gateway.lines = 3
        trade(thread, "OPEN", 5.0, 100)
        until(came(client, "OPEN", 5.0))
        needed = {"OPEN"}

        def served(*tickers: str) -> bool:
            client.update_subscriptions(needed)  # as each cycle of the monitor does
            found = {s.symbol for each in thread.gateway.sessions for s in each.subscriptions}
            return found == set(tickers)

        for ticker in ("OLD", "MID", "NEW"):
            needed.add(ticker)
            assert client.subscribe_ticker(ticker)
        until(lambda: served("OPEN", "MID", "NEW"))
        trade(thread, "NEW", 6.0, 100)
        until(came(client, "NEW", 6.0))
        assert len(logged(caplog, "OLD, which has waited longest for its first trade")) == 1
        assert "NEW (1 so far)" in caplog.text
        assert client.displaced_tickers == 1
        needed.remove("MID")
        until(lambda: served("OPEN", "OLD", "NEW"))


def test_after_1101_all_is_subscribed_again_and_every_ticker_ticks() -> None:
    symbols = [f"T{number:02}" for number in range(100)]
    with serving(*symbols) as thread, connected(thread, *symbols) as client:
        send_code(thread, 1100)
        until(lambda: client.state is ConnectionState.STALE)
        assert "lost its connection to IBKR" in client.stale_reason
        before = dict(client.ticker_to_reqid)
        began = time.monotonic()
        send_code(thread, 1101)
        with ticking(thread, *symbols):
            until(lambda: client.price_buffer.keys() == set(symbols))
        took_s = time.monotonic() - began
        print(f"{len(symbols)} tickers tick again after {took_s:.2f} s")  # noqa: T201
        assert took_s < 5
        assert client.state is ConnectionState.READY
        # The newest headline first.
        assert requested(thread, "reqMktData")[len(symbols) :] == [*reversed(symbols)]
        assert not set(before.values()) & set(client.ticker_to_reqid.values())
        assert requested(thread, "startApi") == [""]


OUTAGES = [(1100, 1102), (2110, 1102), (2103, 2104)]


@pytest.mark.parametrize(("lost", "restored"), OUTAGES)
@pytest.mark.parametrize("others_flow", [False, True], ids=["all dark", "some flow meanwhile"])
def test_after_an_outage_just_the_tickers_that_stay_silent_are_asked_for_again(
    lost: int, restored: int, others_flow: bool
) -> None:
    with serving("AAPL", "MSFT") as thread, connected(thread, "AAPL", "MSFT") as client:
        send_code(thread, lost)
        until(lambda: client.state is ConnectionState.STALE)
        assert OWN_WORDS in client.stale_reason
        if others_flow:
            with ticking(thread, "MSFT"):
                until(lambda: client.state is ConnectionState.READY)
        send_code(thread, restored)
        with ticking(thread, "MSFT"):
            until(lambda: requested(thread, "reqMktData").count("AAPL") == 2)
            time.sleep(0.2)
        assert client.state is ConnectionState.READY
        assert client.stale_reason == ""
        assert requested(thread, "reqMktData") == ["AAPL", "MSFT", "AAPL"]
        assert requested(thread, "startApi") == [""]


@every_form
def test_data_in_one_read_with_the_news_of_its_return_counts_on_its_own_side_of_it(
    server_version: int,
) -> None:
    with (
        serving("AAPL", "MSFT", server_version=server_version) as thread,
        connected(thread, "AAPL", "MSFT") as client,
    ):
        send_code(thread, 1100)
        until(lambda: client.state is ConnectionState.STALE)
        encoder = Encoder(server_version)
        before, after = (
            encoder.tick_price(client.ticker_to_reqid[ticker], LAST, 5.0, "1")
            for ticker in ("AAPL", "MSFT")
        )
        thread.call(thread.gateway.raw, before + encoder.error(-1, 1102, OWN_WORDS) + after)
        until(lambda: requested(thread, "reqMktData").count("AAPL") == 2)
        time.sleep(0.2)
        assert requested(thread, "reqMktData") == ["AAPL", "MSFT", "AAPL"]


def test_a_farm_that_flaps_costs_neither_the_socket_nor_many_lines(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with serving("AAPL") as thread, connected(thread, "AAPL") as client:
        for _ in range(50):
            send_code(thread, 2103)
            send_code(thread, 2104)
        trade(thread, "AAPL", 271.5, 100)
        until(came(client, "AAPL", 271.5))
        assert client.state is ConnectionState.READY
        assert requested(thread, "startApi") == [""]
        assert len(lines(caplog)) == 1


def test_data_that_flows_while_stale_ends_it_but_not_what_was_on_its_way() -> None:
    with serving("AAPL") as thread, connected(thread, "AAPL") as client:
        send_code(thread, 1100)
        trade(thread, "AAPL", 1.0, 1)
        until(came(client, "AAPL", 1.0))
        assert client.state is ConnectionState.STALE
        with ticking(thread, "AAPL"):
            until(lambda: client.state is ConnectionState.READY)
        assert client.stale_reason == ""


def test_stale_is_connected_and_takes_subscriptions() -> None:
    with serving("AAPL") as thread, connected(thread) as client:
        send_code(thread, 2103)
        until(lambda: client.state is ConnectionState.STALE)
        assert client.connected
        assert client.subscribe_ticker("AAPL")
        until(lambda: requested(thread, "reqMktData") == ["AAPL"])


# Messages that cannot be read


@every_form
def test_open_orders_that_cannot_be_read_cost_neither_the_connection_nor_a_tick(
    server_version: int, caplog: pytest.LogCaptureFixture
) -> None:
    with serving("AAPL", server_version=server_version) as thread:
        thread.gateway.open_orders = 3
        thread.gateway.garbled = {IN.OPEN_ORDER}
        with connected(thread, "AAPL") as client:
            trade(thread, "AAPL", 271.5, 100)
            until(came(client, "AAPL", 271.5))
        assert requested(thread, "startApi") == [""]
    assert len(logged(caplog, "Skipped a message of kind OPEN_ORDER")) == 1
    assert len(logged(caplog, "connection: 3 OPEN_ORDER messages.", logging.INFO)) == 1


@every_form
@pytest.mark.parametrize("kind", ["NEXT_VALID_ID", "MANAGED_ACCTS"])
def test_an_id_or_an_account_that_cannot_be_read_fails_the_attempt(
    kind: str, server_version: int
) -> None:
    with serving(server_version=server_version) as thread:
        thread.gateway.garbled = {getattr(IN, kind)}
        client = IBKRClient(HOST, thread.gateway.port)
        assert client.connect_and_run() is False
        assert f"a message of kind {kind} that" in str(client.failure)


@every_form
@pytest.mark.parametrize("kind", ["TICK_PRICE", "TICK_SIZE", "TICK_STRING", "ERR_MSG"])
def test_a_tick_or_a_code_that_cannot_be_read_ends_the_connection(
    kind: str, server_version: int
) -> None:
    with (
        serving("AAPL", server_version=server_version) as thread,
        connected(thread, "AAPL") as client,
    ):
        thread.gateway.garbled.add(getattr(IN, kind))
        trade(thread, "AAPL", 271.5, 100)
        send_code(thread, 2104)
        assert ended(client)
        assert f"a message of kind {kind} that" in str(client.failure)


@every_form
@pytest.mark.parametrize("kind", ["CONTRACT_DATA", "CONTRACT_DATA_END"])
def test_listings_that_cannot_be_read_are_asked_for_again(
    kind: str,
    server_version: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    lasting(monkeypatch, parked_s=0.2)
    with serving("AAPL", server_version=server_version) as thread:
        thread.gateway.ambiguous = {"AAPL"}
        thread.gateway.garbled = {getattr(IN, kind)}
        with connected(thread, "AAPL") as client:
            until(lambda: logged(caplog, f"Skipped a message of kind {kind},"))
            thread.gateway.garbled.clear()
            until(lambda: client.subscribe_ticker("AAPL"))
            until(lambda: len(requested(thread, "reqMktData")) == 3)
            trade(thread, "AAPL", 271.5, 100)
            until(came(client, "AAPL", 271.5))
            assert requested(thread, "reqContractDetails") == ["AAPL", "AAPL"]


@every_form
def test_messages_in_one_frame_are_read_one_after_the_other(server_version: int) -> None:
    with (
        serving("AAPL", server_version=server_version) as thread,
        connected(thread, "AAPL") as client,
    ):
        encoder, req_id = Encoder(server_version), client.ticker_to_reqid["AAPL"]
        frame_of_all = glue(
            encoder.tick_price(req_id, LAST, 1.0, "7"),
            encoder.tick_size(req_id, LAST_SIZE, "7"),
            encoder.error(-1, 1100, OWN_WORDS),
            encoder.tick_price(req_id, LAST, 2.0, "8"),
            encoder.current_time(),
            encoder.tick_price(req_id, LAST, 3.0, "9"),
        )
        thread.call(thread.gateway.raw, frame_of_all)
        until(lambda: buffered(client, "AAPL") == [(1.0, 7), (2.0, 8), (3.0, 9)])
        assert client.state is ConnectionState.STALE
        assert OWN_WORDS in client.stale_reason


@every_form
def test_a_gateway_that_sends_several_messages_in_a_frame_is_like_any_other(
    server_version: int, caplog: pytest.LogCaptureFixture
) -> None:
    with serving("AAPL", server_version=server_version) as thread:
        thread.gateway.gluing = True
        thread.gateway.ambiguous = {"AAPL"}
        with connected(thread) as client:
            client.subscribe_ticker("AAPL")
            until(lambda: len(requested(thread, "reqMktData")) == 2)
            sent = [(271.5, 100), (271.25, 7), (271.5, 30)]
            for price, size in sent:
                trade(thread, "AAPL", price, size)
            until(lambda: buffered(client, "AAPL") == sent)
            assert client.accounts == ["DU1234567"]
    assert lines(caplog) == []


@every_form
def test_bytes_behind_a_message_that_are_none_are_told_once_and_counted(
    server_version: int, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        serving("AAPL", server_version=server_version) as thread,
        connected(thread, "AAPL") as client,
    ):
        encoder, req_id = Encoder(server_version), client.ticker_to_reqid["AAPL"]
        for price in (1.0, 2.0):
            tick = encoder.tick_price(req_id, LAST, price, "7")
            thread.call(thread.gateway.raw, glue(tick, frame(b"\0\0")))
        until(lambda: buffered(client, "AAPL") == [(1.0, 7), (2.0, 7)])
        assert client.connected
    assert len(logged(caplog, "2 bytes behind a message of kind TICK_PRICE")) == 1
    assert logged(caplog, "connection: 2 pieces behind TICK_PRICE", logging.INFO)


# Subscriptions that stay silent


def test_a_subscription_silent_while_others_tick_is_asked_for_with_a_growing_pause_until_it_ticks(
    monkeypatch: pytest.MonkeyPatch,
    market_hours: Callable[[bool], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    market_hours(True)
    silent_s = 0.4
    lasting(monkeypatch, silent_s=silent_s)
    with serving("AAPL", "MSFT") as thread, connected(thread, "AAPL", "MSFT") as client:
        with ticking(thread, "MSFT"):
            until(lambda: len(asked_at(thread.gateway, "reqMktData", "AAPL")) == 4)
            trade(thread, "AAPL", 271.5, 100)
            until(came(client, "AAPL", 271.5))
            heard_at = time.monotonic()
            until(lambda: len(asked_at(thread.gateway, "reqMktData", "AAPL")) == 5)
        *at, last = asked_at(thread.gateway, "reqMktData", "AAPL")
        for number, gap_s in enumerate(gaps(at)):
            assert gap_s > 0.8 * silent_s * 2**number
        # It would be eight times SILENT_S if it went on growing.
        assert last - heard_at < 6 * silent_s
        assert requested(thread, "reqMktData").count("MSFT") == 1
        told = logged(caplog, "No data for AAPL for")
        assert len(told) == 4
        assert logged(caplog, "No data for MSFT for") == []


@pytest.mark.parametrize("why", ["the market is closed", "none ticks"])
def test_a_silent_subscription_is_left_alone_when(
    why: str, monkeypatch: pytest.MonkeyPatch, market_hours: Callable[[bool], None]
) -> None:
    market_hours(why == "none ticks")
    lasting(monkeypatch, silent_s=0.1)
    flowing = [] if why == "none ticks" else ["MSFT"]
    with serving("AAPL", "MSFT") as thread, connected(thread, "AAPL", "MSFT"):
        with ticking(thread, *flowing):
            time.sleep(1.0)
        assert requested(thread, "reqMktData") == ["AAPL", "MSFT"]


# Delayed data


@versions(176, 225)
def test_delayed_trades_are_taken_with_their_own_sizes_where_they_are_asked_for(
    server_version: int, caplog: pytest.LogCaptureFixture
) -> None:
    with serving("AAPL", "MSFT", server_version=server_version) as thread:
        thread.gateway.delayed_only = {"AAPL"}
        client = IBKRClient(HOST, thread.gateway.port, market_data_type=3)
        assert client.connect_and_run()
        client.update_subscriptions({"AAPL", "MSFT"})
        until(lambda: len(requested(thread, "reqMktData")) == 2)
        for price, size in [(271.5, 100), (271.25, 7), (271.5, 30)]:
            trade(thread, "AAPL", price, size)
        trade(thread, "MSFT", 478.0, 5)
        until(came(client, "MSFT", 478.0))
        assert buffered(client, "AAPL") == [(271.5, 100), (271.25, 7), (271.5, 30)]
        sources = {
            ticker: {tick["source"] for tick in ticks}
            for ticker, ticks in client.get_and_clear_buffer().items()
        }
        assert sources == {"AAPL": {"ibkr_delayed_last"}, "MSFT": {"ibkr_last_trade"}}
        assert len(logged(caplog, "15 minutes late: the account has no live")) == 1
        client.disconnect_safely()


def test_delayed_data_is_asked_for_before_any_ticker_is_and_the_start_says_it_is_late(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with serving("AAPL") as thread:
        client = IBKRClient(HOST, thread.gateway.port, market_data_type=3)
        subscribed = threading.Event()

        def hold_up(record: logging.LogRecord) -> bool:
            # On the API thread, as soon as it says that it is connected.
            if record.getMessage().startswith("Connected to IBKR"):
                subscribed.wait(DEADLINE_S)
            return True

        logger = logging.getLogger("ibkr_client")
        logger.addFilter(hold_up)
        try:
            assert client.connect_and_run()
            assert client.subscribe_ticker("AAPL")
            subscribed.set()
            until(lambda: requested(thread, "reqMktData"))
        finally:
            logger.removeFilter(hold_up)
        # A request for listings comes within a second.
        kinds = [
            (request.kind, request.detail)
            for request in thread.gateway.requests
            if request.kind != "reqContractDetails"
        ]
        assert kinds[1:] == [("reqMarketDataType", "3"), ("reqMktData", "")]
        assert [r.levelname for r in logged(caplog, "DELAYED DATA")] == ["WARNING"]
        assert logged(caplog, "15 minutes late")
        client.disconnect_safely()


def test_delayed_trades_are_not_taken_where_live_data_is_asked_for() -> None:
    with serving("AAPL") as thread, connected(thread, "AAPL") as client:
        encoder = Encoder(client.serverVersion())
        req_id = client.ticker_to_reqid["AAPL"]
        delayed = encoder.tick_price(req_id, DELAYED[LAST], 9.0, "100")
        delayed += encoder.tick_size(req_id, DELAYED[LAST_SIZE], "100")
        thread.call(thread.gateway.raw, delayed)
        trade(thread, "AAPL", 271.5, 7)
        until(came(client, "AAPL", 271.5))
        assert buffered(client, "AAPL") == [(271.5, 7)]
        assert requested(thread, "reqMarketDataType") == []


# The monitor


@pytest.fixture(autouse=True)
def _empty_database(request: pytest.FixtureRequest) -> None:
    """For each test of the monitor."""
    if "settings" in request.fixturenames:
        request.getfixturevalue("database")


@contextlib.asynccontextmanager
async def at_work(
    settings: Settings, *, wait: bool = True
) -> AsyncIterator[ContinuousPriceMonitor]:
    """A monitor at work, ended in order; what ends it by itself is raised."""
    monitor = ContinuousPriceMonitor(settings, wait=wait)
    async with in_background(monitor.start()):
        yield monitor


async def ticks_flow(gateway: Gateway, monitor: ContinuousPriceMonitor, ticker: str) -> None:
    """Trades until the monitor has taken a tick."""
    before = monitor.stats["ibkr_ticks_received"]
    price = 1.0
    deadline = time.monotonic() + DEADLINE_S
    while monitor.stats["ibkr_ticks_received"] == before:
        assert time.monotonic() < deadline, "no tick came through"
        gateway.trade(ticker, price := price + 0.001, 10)
        await asyncio.sleep(0.02)


def newest_prices(database: ClickHouseManager) -> dict[str, float]:
    return {row["ticker"]: row["price"] for row in rows(database)}


def cycles(caplog: pytest.LogCaptureFixture) -> int:
    return len(logged(caplog, "Cycle ", logging.DEBUG))


async def test_a_refused_connection_is_tried_at_an_even_pace_until_the_gateway_comes_up(
    settings: Settings, gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    await gateway.stop()
    async with at_work(settings) as monitor:
        TriggerFolder(settings.trigger_folder).write("ABCD")
        attempts = "Connecting to TWS"
        await come(lambda: len(logged(caplog, attempts, logging.DEBUG)) >= 7, "seven attempts")
        pauses = gaps([r.created for r in logged(caplog, attempts, logging.DEBUG)])
        assert min(pauses) > 0.9 * keeper.RETRY_S
        # Doubled from attempt to attempt, the last would be 64 times the first.
        assert pauses[-1] < 10 * keeper.RETRY_S
        assert len(logged(caplog, "No connection to IBKR")) == 1
        began = time.monotonic()
        await gateway.start()
        await come(lambda: asked_at(gateway, "reqMktData", "ABCD"), "the subscription")
        print(f"tracking {time.monotonic() - began:.2f} s after the gateway's start")  # noqa: T201
        assert time.monotonic() - began < 10
        await ticks_flow(gateway, monitor, "ABCD")
        assert logged(caplog, "No data from IBKR between") == []


async def test_a_gateway_that_is_slow_to_accept_is_served_by_the_first_attempt(
    settings: Settings, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    lasting(monkeypatch, connect_timeout_s=0.2)
    gateway.handshake = Handshake.PENDING
    async with at_work(settings) as monitor:
        await come(lambda: asked_at(gateway, "startApi"), "an attempt")
        await asyncio.sleep(5 * keeper.RETRY_S)
        gateway.accept()
        await come(lambda: monitor.ibkr_connected, "the connection")
        assert len(asked_at(gateway, "startApi")) == 1


async def test_an_accepted_connection_that_fails_is_tried_with_doubling_pauses(
    settings: Settings, gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    await gateway.stop()
    accepted_at: list[float] = []

    def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted_at.append(time.monotonic())
        writer.close()

    async with await asyncio.start_server(hang_up, HOST, gateway.port), at_work(settings):
        await come(lambda: len(accepted_at) >= 6, "six attempts")
    for number, pause in enumerate(gaps(accepted_at)):
        planned_s = min(keeper.MAX_RETRY_S, keeper.RETRY_S * 2**number)
        assert pause > 0.75 * planned_s
    assert len(logged(caplog, "closed the connection during the handshake")) == 1


@contextlib.asynccontextmanager
async def a_tunnel(gateway: Gateway) -> AsyncIterator[int]:
    """A forwarded port: it accepts whether or not the gateway is there, as docker-proxy does."""
    pumps: set[asyncio.Task[None]] = set()

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                sink.write(data)
        sink.close()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far = await asyncio.open_connection(HOST, gateway.port)
        except OSError:
            writer.close()
            return
        for source, sink in ((reader, far[1]), (far[0], writer)):
            pumps.add(asyncio.create_task(pump(source, sink)))

    async with await asyncio.start_server(forward, HOST, 0) as server:
        yield server.sockets[0].getsockname()[1]


async def test_behind_a_tunnel_a_restarted_gateway_is_found_without_a_long_pause(
    settings: Settings,
    gateway: Gateway,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(keeper, "RETRY_S", 0.1)
    monkeypatch.setattr(keeper, "MAX_RETRY_S", 60.0)
    monkeypatch.setattr(times, "SHORT_OUTAGE_PAUSE_S", 0.3)
    async with a_tunnel(gateway) as port:
        behind = Settings(**{**settings.__dict__, "ibkr_port": port})
        async with at_work(behind) as monitor:
            await tracked(gateway, settings, "ABCD")
            await asyncio.sleep(5 * keeper.RETRY_S)
            caplog.clear()
            await gateway.stop()
            # Doubled from attempt to attempt, the last pause would be 25 s.
            attempts = "Connecting to TWS"
            await come(lambda: len(logged(caplog, attempts, logging.DEBUG)) >= 9, "attempts")
            await gateway.start()
            await come(lambda: monitor.ibkr_connected, "the connection")
            await ticks_flow(gateway, monitor, "ABCD")
    (line,) = logged(caplog, "closed the connection during the handshake")
    assert "tunnel" in line.getMessage()


async def test_connections_that_are_lost_as_soon_as_they_are_ready_are_tried_with_pauses(
    settings: Settings, gateway: Gateway
) -> None:
    async def cut_off() -> None:
        while True:
            await asyncio.sleep(0.1)
            gateway.drop()

    async with at_work(settings):
        cutting = asyncio.create_task(cut_off())
        await come(lambda: len(asked_at(gateway, "startApi")) >= 5, "five connections")
        cutting.cancel()
    pauses = gaps(asked_at(gateway, "startApi"))
    assert min(pauses) > 0.75 * keeper.RETRY_S
    assert pauses[3] > 1.5 * keeper.RETRY_S


async def test_a_killed_gateway_that_comes_back_is_served_by_a_new_client_and_the_gap_is_told(
    settings: Settings,
    gateway: Gateway,
    database: ClickHouseManager,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with at_work(settings) as monitor:
        await tracked(gateway, settings, "ABCD")
        await ticks_flow(gateway, monitor, "ABCD")
        first = monitor.ibkr_client
        killed = datetime.now(UTC)
        await gateway.stop()
        cycles_before = cycles(caplog)
        await come(lambda: not monitor.ibkr_connected, "the end")
        TriggerFolder(settings.trigger_folder).write("EFGH")
        await come(lambda: "EFGH" in monitor.active_tickers, "the trigger, without a gateway")
        await come(lambda: cycles(caplog) > cycles_before + 3, "cycles, without a gateway")
        gateway.requests.clear()
        began = time.monotonic()
        await gateway.start()
        await come(lambda: len(asked_at(gateway, "reqMktData")) == 2, "the subscriptions")
        gateway.trade("ABCD", 7.5, 1)
        gateway.trade("EFGH", 8.5, 1)
        back = datetime.now(UTC)
        await come(lambda: newest_prices(database) == {"ABCD": 7.5, "EFGH": 8.5}, "the rows")
        print(f"rows {time.monotonic() - began:.2f} s after the gateway's return")  # noqa: T201
        assert time.monotonic() - began < 10
        assert monitor.ibkr_client is not first
        assert monitor.stats["ibkr_reconnections"] == 1
    (gap,) = logged(caplog, "No data from IBKR between")
    begin, end = re.findall(r"\d\d:\d\d:\d\d", gap.getMessage())
    assert begin in seconds_around(killed)
    assert end in seconds_around(back)


def seconds_around(at: datetime) -> set[str]:
    return {f"{at + timedelta(seconds=shift):%H:%M:%S}" for shift in (-1, 0, 1)}


async def test_a_gateway_gone_silent_is_left_for_a_new_connection_and_the_gap_begins_with_silence(
    settings: Settings,
    gateway: Gateway,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # Longer than the second by which the begin of the gap may be off.
    lasting(monkeypatch, heartbeat_s=1.5, answer_s=1.5)
    async with at_work(settings) as monitor:
        await tracked(gateway, settings, "ABCD")
        await ticks_flow(gateway, monitor, "ABCD")
        fell_silent = datetime.now(UTC)
        gateway.silent = True
        await come(lambda: not monitor.ibkr_connected, "the heartbeat's alarm")
        gateway.silent = False
        await come(lambda: len(asked_at(gateway, "reqMktData", "ABCD")) == 2, "the subscription")
        await ticks_flow(gateway, monitor, "ABCD")
    assert len(logged(caplog, "No message from TWS")) == 1
    (gap,) = logged(caplog, "No data from IBKR between")
    assert re.findall(r"\d\d:\d\d:\d\d", gap.getMessage())[0] in seconds_around(fell_silent)


async def test_a_client_id_taken_at_a_reconnect_is_waited_for(
    settings: Settings, gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    async with at_work(settings) as monitor:
        await tracked(gateway, settings, "ABCD")
        # Handshakes fail until the other one is about to take the id; it may take two tries.
        for _ in range(10):
            gateway.handshake = Handshake.CLOSE
            gateway.drop()
            await come(lambda: not monitor.ibkr_connected, "the end")
            gateway.handshake = Handshake.NORMAL
            other = IBKRClient(HOST, gateway.port, settings.ibkr_client_id)
            if await asyncio.to_thread(other.connect_and_run):
                break
        caplog.clear()
        attempts = len(asked_at(gateway, "startApi"))
        in_use = f"Client id {settings.ibkr_client_id} is in use"
        await come(lambda: len(asked_at(gateway, "startApi")) >= attempts + 4, "attempts")
        pauses = gaps(asked_at(gateway, "startApi")[attempts:])
        assert min(pauses) > 0.75 * keeper.RETRY_S
        assert pauses[-1] > 1.5 * keeper.RETRY_S
        assert len(logged(caplog, in_use)) == 1
        assert "IBKR_CLIENT_ID" in logged(caplog, in_use)[0].getMessage()
        await asyncio.to_thread(other.disconnect_safely)
        await come(lambda: monitor.ibkr_connected, "the connection once the id is free")
        await ticks_flow(gateway, monitor, "ABCD")


async def test_a_client_id_in_use_at_the_start_ends_a_monitor_that_does_not_wait(
    settings: Settings, gateway: Gateway
) -> None:
    other = IBKRClient(HOST, gateway.port, settings.ibkr_client_id)
    assert await asyncio.to_thread(other.connect_and_run)
    with pytest.raises(GatewayError, match=r"Client id 10 is in use .*IBKR_CLIENT_ID"):
        await ContinuousPriceMonitor(settings).start()
    await asyncio.to_thread(other.disconnect_safely)


async def test_nothing_that_makes_no_sense_ends_the_monitor(
    settings: Settings,
    gateway: Gateway,
    database: ClickHouseManager,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    lasting(monkeypatch, heartbeat_s=0.4, answer_s=0.8)
    nonsense = {
        "a length that is too great": b"\x7f\xff\xff\xff",
        "a length that is wrong": (60_000).to_bytes(4, "big"),
        "broken protobuf": frame((201).to_bytes(4, "big") + b"\xff\xff"),
        "a message of 16 MB": frame(bytes(1 << 24)),
        "code 505": Encoder(225).error(-1, 505, "Fatal Error: Unknown message id."),
        "code 507": Encoder(225).error(-1, 507, "Bad Message Length"),
    }
    async with at_work(settings) as monitor:
        await tracked(gateway, settings, "ABCD")
        threads = {t.name for t in threading.enumerate() if not t.name.startswith("off-loop")}
        for number, (what, data) in enumerate(nonsense.items(), 1):
            connections = len(asked_at(gateway, "startApi"))
            client = monitor.ibkr_client
            gateway.raw(data)
            await come(lambda n=connections: len(asked_at(gateway, "startApi")) > n, what)  # type: ignore[misc]
            await come(lambda n=number: len(asked_at(gateway, "reqMktData")) > n, what)  # type: ignore[misc]
            await ticks_flow(gateway, monitor, "ABCD")
            assert monitor.ibkr_client is not client
            # A connection that broke before its attempt is over would count as none.
            await come(lambda n=number: monitor.stats["ibkr_reconnections"] == n, what)  # type: ignore[misc]
        # Not one byte of these is waited for.
        for size in (0x7FFFFFFF, 1 << 24):
            assert len(logged(caplog, f"a message of {size} bytes")) == 1
        await tracked(gateway, settings, "EFGH")
        gateway.trade("EFGH", 8.5, 1)
        await come(lambda: newest_prices(database).get("EFGH") == 8.5, "a row")
        assert threads == {
            t.name for t in threading.enumerate() if not t.name.startswith("off-loop")
        }
    assert [record for record in caplog.records if record.exc_info and record.levelno > 10] == []


async def test_half_a_million_ticks_in_one_burst_leave_the_newest_the_memory_and_the_loop_alone(
    settings: Settings, database: ClickHouseManager
) -> None:
    symbols = [f"T{number}" for number in range(10)]
    each = 50_000
    with serving(*symbols) as thread:
        settings = Settings(**{**settings.__dict__, "ibkr_port": thread.gateway.port})
        async with at_work(settings) as monitor:
            for symbol in symbols:
                await tracked(thread.gateway, settings, symbol)
            client = monitor.ibkr_client
            assert client is not None
            encoder = Encoder(client.serverVersion())
            prices = [1 + number / 1024 for number in range(each)]
            ids = [client.ticker_to_reqid[symbol] for symbol in symbols]
            burst = bytearray()
            for price in prices:
                for req_id in ids:
                    burst += encoder.tick_price(req_id, LAST, price, "100")
            peak_before = peak_mb()
            stall_s, most_buffered, taken = 0.0, 0, 0.0
            thread.call(thread.gateway.raw, bytes(burst))
            began = last = time.monotonic()
            while taken < len(symbols) * each:
                await asyncio.sleep(0.002)
                now = time.monotonic()
                stall_s, last = max(stall_s, now - last), now
                assert now - began < 60, "the burst was not taken in"
                most_buffered = max([most_buffered, *map(len, list(client.price_buffer.values()))])
                taken = monitor.stats["ibkr_ticks_received"] + client.ticks_pushed_out
            took_s = time.monotonic() - began
            await come(
                lambda: newest_prices(database) == dict.fromkeys(symbols, prices[-1]), "the rows"
            )
            grown_mb = peak_mb() - peak_before
            print(  # noqa: T201
                f"{len(symbols) * each} ticks in {took_s:.1f} s, longest stall {stall_s:.3f} s, "
                f"{client.ticks_pushed_out} pushed out, {grown_mb:.0f} MB more"
            )
            assert client.connected
            assert most_buffered <= 5000
            # A loop that waited for the API thread would stand for most of the time.
            assert stall_s < took_s / 3
            # The burst itself, 15 MB, lies in this process up to three times.
            assert grown_mb < 150


def peak_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


@pytest.mark.parametrize("wait", [False, True])
async def test_a_changed_socket_port_ends_the_monitor_for_good(
    settings: Settings, gateway: Gateway, wait: bool
) -> None:
    monitor = ContinuousPriceMonitor(settings, wait=wait)
    work = asyncio.create_task(monitor.start())
    async with asyncio.timeout(DEADLINE_S):
        await monitor.ready_event.wait()
    gateway.send_error(1300, "Socket port has been reset. Please reconnect on port 7500.")
    with pytest.raises(GatewayError, match=r"IBKR_PORT .*port 7500"):
        async with asyncio.timeout(DEADLINE_S):
            await work


async def test_a_tws_too_old_ends_the_monitor_although_it_waits(
    settings: Settings, gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    await gateway.stop()
    encoder = Encoder(176)

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(encoder.version() + encoder.error(-1, 503, "The TWS is out of date."))
        await reader.read()
        writer.close()

    async with await asyncio.start_server(refuse, HOST, gateway.port):
        with pytest.raises(GatewayError, match=r"too old .*update it"):
            async with asyncio.timeout(DEADLINE_S):
                await ContinuousPriceMonitor(settings, wait=True).start()
    assert len(logged(caplog, "too old")) == 1


# Blind

BLIND_S = 0.6


@pytest.fixture
def _soon_blind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sight, "BLIND_S", BLIND_S)


Cause = Callable[[Gateway], Any]
BLINDNESS: dict[str, tuple[Cause, str]] = {
    "no gateway": (lambda gateway: gateway.stop(), "not connected"),
    "TWS without IBKR": (
        lambda gateway: gateway.send_error(1100, "Connectivity has been lost."),
        "TWS lost its connection to IBKR",
    ),
}


@pytest.mark.usefixtures("_soon_blind")
@pytest.mark.parametrize(("cause", "reason"), BLINDNESS.values(), ids=BLINDNESS)
async def test_blindness_is_told_once_with_its_reason_and_so_is_the_return_of_sight(
    settings: Settings,
    gateway: Gateway,
    market_hours: Callable[[bool], None],
    caplog: pytest.LogCaptureFixture,
    cause: Cause,
    reason: str,
) -> None:
    market_hours(True)
    async with at_work(settings) as monitor:
        await tracked(gateway, settings, "ABCD")
        await ticks_flow(gateway, monitor, "ABCD")
        if (ending := cause(gateway)) is not None:
            await ending
        seen_at = time.time()
        await come(lambda: logged(caplog, "BLIND"), "the warning")
        assert logged(caplog, "BLIND")[0].created - seen_at > BLIND_S / 2
        await asyncio.sleep(2 * BLIND_S)
        if reason == "not connected":
            await gateway.start()
            await come(lambda: gateway.sessions and monitor.ibkr_connected, "the connection")
        assert logged(caplog, "Market data is flowing again") == []
        await ticks_flow(gateway, monitor, "ABCD")
        await come(lambda: logged(caplog, "Market data is flowing again"), "the line")
        (blind,) = logged(caplog, "BLIND")
        assert reason in blind.getMessage()
        assert len(logged(caplog, "Market data is flowing again")) == 1


@pytest.mark.usefixtures("_soon_blind")
async def test_nothing_is_awaited_while_no_ticker_is_active_and_each_blindness_counts_for_itself(
    settings: Settings, gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    async with at_work(settings) as monitor:
        await come(lambda: monitor.ibkr_connected, "the connection")
        gateway.send_error(1100, "Connectivity has been lost.")
        await asyncio.sleep(2 * BLIND_S)
        assert logged(caplog, "BLIND") == []
        tracked_at = time.time()
        await tracked(gateway, settings, "ABCD")
        await come(lambda: len(logged(caplog, "BLIND")) == 1, "the first warning")
        assert logged(caplog, "BLIND")[0].created - tracked_at > BLIND_S / 2
        monitor.ticker_timestamps["ABCD"] -= timedelta(hours=1)
        await monitor.cleanup_old_tickers()
        await asyncio.sleep(2 * BLIND_S)
        assert monitor.active_tickers == set()
        tracked_at = time.time()
        await tracked(gateway, settings, "EFGH")
        await come(lambda: len(logged(caplog, "BLIND")) == 2, "the second warning")
        assert logged(caplog, "BLIND")[1].created - tracked_at > BLIND_S / 2
        assert logged(caplog, "Market data is flowing again") == []


@pytest.mark.usefixtures("_soon_blind")
async def test_quiet_stocks_and_refused_ones_are_no_reason_to_be_blind(
    settings: Settings,
    gateway: Gateway,
    database: ClickHouseManager,
    caplog: pytest.LogCaptureFixture,
) -> None:
    rate(database, "ABCD", "BUY", detected_at=datetime.now(UTC))
    async with at_work(settings, wait=False):
        await come(lambda: asked_at(gateway, "reqMktData", "ABCD"), "the subscription")
        await tracked(gateway, settings, "EFGH")
        gateway.send_error(354, "Not subscribed.", req_ids(gateway)[-1])
        await asyncio.sleep(3 * BLIND_S)
        assert logged(caplog, "BLIND") == []


async def test_the_monitor_stores_delayed_trades_as_delayed(
    settings: Settings,
    gateway: Gateway,
    database: ClickHouseManager,
    caplog: pytest.LogCaptureFixture,
) -> None:
    gateway.delayed_only = {"ABCD"}
    settings = Settings(**{**settings.__dict__, "ibkr_market_data_type": 3})
    async with at_work(settings):
        await tracked(gateway, settings, "ABCD")
        gateway.trade("ABCD", 2.5, 70)
        query = "SELECT price, volume, source FROM News.price_tracking"
        await come(lambda: database.client.query(query).result_rows, "a row")
        assert database.client.query(query).result_rows == [(2.5, 70, "ibkr_delayed_last")]
    assert logged(caplog, "DELAYED DATA")
