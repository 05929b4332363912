"""IBKRClient against simulated gateways and failing listeners, over real sockets."""

import http.server
import itertools
import logging
import math
import random
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from deadlines import DEADLINE_S
from ibapi.const import MAX_MSG_LEN, UNSET_DECIMAL, UNSET_DOUBLE
from ibapi.ticktype import TickTypeEnum
from ibapi.wrapper import EWrapper
from tws import (
    EXPECTED,
    HOST,
    OWN_WORDS,
    buffered,
    came,
    connected,
    ended,
    every_form,
    every_version,
    lasting,
    lines,
    requested,
    serving,
    trade,
    until,
    versions,
)

import ibkr_client
from ibkr_client import ConnectionState, GatewayError, IBKRClient, get_ibkr_client
from newshead.settings import ConfigurationError
from newshead.tws import trades
from newshead.tws.codes import CODES, Reaction
from newshead.tws.wire import TwsSocket
from simulator import Handshake
from simulator.encode import Encoder
from simulator.wire import frame

SHORT_TIMEOUT_S = 0.5

LAST, LAST_SIZE = 4, 5
TICK_PRICE, PROTOBUF = 1, 200
ALL_LEVELS = logging.DEBUG


def level_of(caplog: pytest.LogCaptureFixture, part: str) -> str:
    """The level of the one line that has a part."""
    (level,) = [
        record.levelname
        for record in list(caplog.records)
        if record.name == "ibkr_client" and part in record.getMessage()
    ]
    return level


@pytest.fixture(autouse=True)
def _everything_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(ALL_LEVELS, logger="ibkr_client")


@pytest.fixture
def short_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    lasting(monkeypatch, connect_timeout_s=SHORT_TIMEOUT_S)


@pytest.fixture
def seed() -> int:
    number = random.randrange(2**32)
    print(f"seed {number}")  # noqa: T201 -- pytest shows it when the test fails
    return number


# Connecting


@every_version
def test_it_connects_in_each_form_of_the_protocol(
    server_version: int, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(server_version=server_version) as thread:
        client = IBKRClient(HOST, thread.gateway.port, client_id=42)
        assert (client.state, client.connected) == (ConnectionState.DISCONNECTED, False)
        assert client.connect_and_run() is True
        assert (client.state, client.connected) == (ConnectionState.READY, True)
        assert client.serverVersion() == server_version
        assert client.next_order_id == 1
        assert client.accounts == ["DU1234567"]
        assert client.mode == "PAPER"
        assert client.failure is None
        assert [request[1:3] for request in thread.gateway.requests] == [(42, "startApi")]
        client.disconnect_safely()
        assert (client.state, client.connected) == (ConnectionState.DISCONNECTED, False)
        assert lines(caplog) == []


@pytest.mark.usefixtures("short_timeout")
def test_the_state_shows_how_far_an_attempt_has_come() -> None:
    with serving() as thread:
        thread.gateway.handshake = Handshake.SILENT
        client = IBKRClient(HOST, thread.gateway.port)
        attempt = threading.Thread(target=client.connect_and_run)
        attempt.start()
        until(lambda: client.state is ConnectionState.SOCKET_OPEN)
        assert not client.connected
        attempt.join(DEADLINE_S)
        assert ended(client)
        assert client.state is ConnectionState.DISCONNECTED


def test_two_clients_receive_the_same_ticks_at_the_same_time() -> None:
    with (
        serving("AAPL") as thread,
        connected(thread, "AAPL", client_id=1) as tradehead,
        connected(thread, "AAPL", client_id=10) as newshead,
    ):
        expected = [(270.0 + number, 100 + number) for number in range(20)]
        for price, size in expected:
            trade(thread, "AAPL", price, size)
        for client in (tradehead, newshead):
            until(came(client, "AAPL", 289.0))
            assert buffered(client, "AAPL") == expected
            assert client.connected


@pytest.mark.parametrize("end", ["disconnect", "disconnect_safely", "drop"])
def test_host_and_port_survive_a_disconnect(end: str) -> None:
    with serving() as thread, connected(thread) as client:
        if end == "drop":
            thread.call(thread.gateway.drop)
        else:
            getattr(client, end)()
        assert ended(client)
        assert (client.host, client.port) == (HOST, thread.gateway.port)


# Ticks


@every_version
def test_a_tick_carries_the_size_of_its_own_trade(server_version: int) -> None:
    with (
        serving("AAPL", server_version=server_version) as thread,
        connected(thread, "AAPL") as client,
    ):
        expected = [(271.5, 100), (271.25, 7), (271.5, 3000), (0.0123, 1), (271.5, 12)]
        for price, size in expected:
            trade(thread, "AAPL", price, size)
        until(lambda: len(buffered(client, "AAPL")) == len(expected))
        assert buffered(client, "AAPL") == expected
        assert client.last_volume["AAPL"] == 12


@every_form
def test_the_first_tick_after_subscribing_carries_its_size(server_version: int) -> None:
    with serving("AAPL", server_version=server_version) as thread:
        trade(thread, "AAPL", 270.0, 50)
        trade(thread, "AAPL", 271.5, 120)
        with connected(thread, "AAPL") as client:
            trade(thread, "AAPL", 272.0, 9)
            until(came(client, "AAPL", 272.0))
            assert buffered(client, "AAPL") == [(271.5, 120), (272.0, 9)]


@every_form
def test_a_trade_at_the_last_price_comes_as_a_lone_size_and_makes_no_tick(
    server_version: int,
) -> None:
    with (
        serving("AAPL", server_version=server_version) as thread,
        connected(thread, "AAPL") as client,
    ):
        for price, size in [(271.5, 100), (271.5, 300), (271.5, 100), (272.0, 8)]:
            trade(thread, "AAPL", price, size)
        until(came(client, "AAPL", 272.0))
        assert buffered(client, "AAPL") == [(271.5, 100), (272.0, 8)]


@every_form
def test_fractional_sizes_are_rounded_to_the_nearest_and_to_at_least_one(
    server_version: int,
) -> None:
    rounded = {
        0.0001: 1,
        0.25: 1,
        0.5: 1,
        1.49: 1,
        1.5: 2,
        2.5: 3,
        99.51: 100,
        1e9 + 0.5: 10**9 + 1,
    }
    with (
        serving("AAPL", server_version=server_version) as thread,
        connected(thread, "AAPL") as client,
    ):
        for price, size in enumerate(rounded, 1):
            trade(thread, "AAPL", price, size)
        until(lambda: len(buffered(client, "AAPL")) == len(rounded))
        volumes = [volume for _, volume in buffered(client, "AAPL")]
        assert volumes == list(rounded.values())
        assert {type(volume) for volume in volumes} == {int}


@every_form
def test_a_missing_size_is_0(server_version: int) -> None:
    with (
        serving("AAPL", server_version=server_version) as thread,
        connected(thread, "AAPL") as client,
    ):
        req_id = client.ticker_to_reqid["AAPL"]
        for price, size in [(1.0, "5"), (2.0, ""), (3.0, "6")]:
            message = tick_price(server_version, req_id, price, size)
            thread.call(thread.gateway.raw, message)
        until(came(client, "AAPL", 3.0))
        assert buffered(client, "AAPL") == [(1.0, 5), (2.0, 0), (3.0, 6)]


@pytest.mark.parametrize(
    "size", [UNSET_DECIMAL, Decimal("NaN"), Decimal("Infinity"), Decimal(-1), Decimal(2**64)]
)
def test_a_size_that_is_no_number_of_shares_is_0(size: Decimal) -> None:
    with serving("AAPL") as thread, connected(thread, "AAPL") as client:
        req_id = client.ticker_to_reqid["AAPL"]
        client.tickSize(req_id, LAST_SIZE, Decimal(7))
        client.tickSize(req_id, LAST_SIZE, size)
        client.tickPrice(req_id, LAST, 5.0, None)
        assert buffered(client, "AAPL") == [(5.0, 0)]


@every_form
@pytest.mark.parametrize(
    "price", [-1.0, 0.0, math.nan, math.inf, -math.inf, UNSET_DOUBLE, -UNSET_DOUBLE]
)
def test_a_price_that_is_not_a_positive_finite_number_is_dropped(
    server_version: int, price: float, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        serving("AAPL", server_version=server_version) as thread,
        connected(thread, "AAPL") as client,
    ):
        req_id = client.ticker_to_reqid["AAPL"]
        for each, size in [(1.0, "5"), (price, "0"), (price, "7"), (2.0, "6")]:
            thread.call(thread.gateway.raw, tick_price(server_version, req_id, each, size))
        until(came(client, "AAPL", 2.0))
        assert buffered(client, "AAPL") == [(1.0, 5), (2.0, 6)]
        assert lines(caplog) == []


def test_a_tick_says_when_it_came_in_aware_utc_and_where_from() -> None:
    with serving("AAPL") as thread, connected(thread, "AAPL") as client:
        before = datetime.now(UTC)
        trade(thread, "AAPL", 271.5, 100)
        until(came(client, "AAPL", 271.5))
        (tick,) = client.get_and_clear_buffer()["AAPL"]
        assert set(tick) == {"price", "volume", "timestamp", "source"}
        assert tick["timestamp"].utcoffset() == timedelta(0)
        assert before <= tick["timestamp"] <= datetime.now(UTC)
        assert tick["source"] == "ibkr_last_trade"


def test_price_callback_gets_each_tick_once_as_it_stands_in_the_buffer() -> None:
    called: list[tuple[str, float, int, datetime]] = []

    def price_callback(*tick: Any) -> None:
        called.append(tick)

    with (
        serving("AAPL", "MSFT") as thread,
        connected(thread, "AAPL", "MSFT", price_callback=price_callback),
    ):
        sent = [("AAPL", 271.5, 100), ("MSFT", 478.0, 7), ("AAPL", 271.75, 30)]
        for ticker, price, size in sent:
            trade(thread, ticker, price, size)
        until(lambda: len(called) >= len(sent))
        trade(thread, "AAPL", 271.75, 99)
        trade(thread, "MSFT", 1.0, 1)
        until(lambda: called[-1][:2] == ("MSFT", 1.0))
        assert [call[:3] for call in called[:-1]] == sent
        assert {call[3].utcoffset() for call in called} == {timedelta(0)}


def test_what_price_callback_raises_is_logged_and_goes_no_further(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def price_callback(_ticker: str, price: float, _volume: int, _now: datetime) -> None:
        raise ZeroDivisionError(f"at {price}")

    with (
        serving("AAPL") as thread,
        connected(thread, "AAPL", price_callback=price_callback) as client,
    ):
        trade(thread, "AAPL", 271.5, 100)
        trade(thread, "AAPL", 272.0, 200)
        until(came(client, "AAPL", 272.0))
        assert buffered(client, "AAPL") == [(271.5, 100), (272.0, 200)]
        assert client.connected
        until(lambda: len(lines(caplog)) == 2)
        assert lines(caplog) == ["price_callback failed for AAPL"] * 2
        assert "ZeroDivisionError: at 271.5" in caplog.text


CALLBACKS = sorted(
    name for name in vars(IBKRClient) if name[0] != "_" and callable(getattr(EWrapper, name, None))
)


def test_the_callbacks_that_are_overridden_are_known() -> None:
    assert set(CALLBACKS) >= {
        "connectionClosed",
        "error",
        "managedAccounts",
        "nextValidId",
        "tickGeneric",
        "tickPrice",
        "tickSize",
        "tickString",
    }


@pytest.mark.parametrize("name", CALLBACKS)
def test_no_callback_raises_whatever_it_is_given(name: str, seed: int) -> None:
    dice = random.Random(seed)
    values = [None, -1, 0, 7, LAST, LAST_SIZE, 326, 2**200, 1.5, math.nan, -math.inf, UNSET_DOUBLE]
    values += ["", "{ticker} %d", b"\xff", [], {}, object(), True, Decimal("sNaN"), UNSET_DECIMAL]
    client = IBKRClient()
    client.reqid_to_ticker[7] = "AAPL"
    getattr(client, name)()
    for _ in range(300):
        getattr(client, name)(*(dice.choice(values) for _ in range(dice.randrange(6))))
    client.reqid_to_ticker[8] = "MSFT"
    client.tickSize(8, LAST_SIZE, Decimal(100))
    client.tickPrice(8, LAST, 5.0, None)
    assert buffered(client, "MSFT") == [(5.0, 100)]


# Driven by hand, as the specification's sketch does it


class Unsent(IBKRClient):
    """A client that notes its requests instead of sending them."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[str, int]] = []

    def reqMktData(self, reqId: int, contract: Any, *_: Any) -> None:
        self.sent.append((contract.symbol, reqId))

    def cancelMktData(self, reqId: int) -> None:
        self.sent.append(("cancel", reqId))


def test_connected_can_be_assigned() -> None:
    changes: list[ConnectionState] = []
    client = Unsent()
    client.state_callback = lambda: changes.append(client.state)
    client.connected = True
    assert (client.state, client.connected) == (ConnectionState.READY, True)
    assert client.subscribe_ticker("AAPL")
    assert client.sent == [("AAPL", 1000)]
    client.connected = False
    assert (client.state, client.connected) == (ConnectionState.DISCONNECTED, False)
    assert not client.subscribe_ticker("MSFT")
    assert changes == [ConnectionState.READY, ConnectionState.DISCONNECTED]


def test_an_assignment_holds_until_the_connection_s_next_event() -> None:
    with serving("AAPL") as thread, connected(thread, "AAPL") as client:
        client.connected = False
        trade(thread, "AAPL", 271.5, 100)
        until(came(client, "AAPL", 271.5))
        assert not client.connected
        client.nextValidId(1)
        assert client.connected


def test_the_dicts_can_be_changed_and_assigned_and_are_what_is_worked_on() -> None:
    client = Unsent()
    client.connected = True
    client.reqid_to_ticker = {7: "AAPL"}
    client.ticker_to_reqid = {"AAPL": 7}
    client.active_subscriptions = {"AAPL"}
    client.next_req_id = 50
    client.rejected_tickers.add("NOPE")
    client.update_subscriptions({"MSFT", "NOPE"})
    assert client.sent == [("cancel", 7), ("MSFT", 50)]
    assert (client.reqid_to_ticker, client.ticker_to_reqid) == ({50: "MSFT"}, {"MSFT": 50})
    assert client.active_subscriptions == {"MSFT"}
    client.price_buffer = {"MSFT": [{"price": 1.0}]}
    assert client.get_and_clear_buffer() == {"MSFT": [{"price": 1.0}]}


def test_a_price_by_hand_is_a_tick_at_once_with_the_last_size_known() -> None:
    called: list[tuple[Any, ...]] = []
    client = IBKRClient(price_callback=lambda *tick: called.append(tick[:3]))
    client.reqid_to_ticker[7] = "AAPL"
    client.tickPrice(7, LAST, 5.0, None)
    assert buffered(client, "AAPL") == [(5.0, 0)]
    client.tickSize(7, LAST_SIZE, Decimal(100))
    assert client.last_volume == {"AAPL": 100}
    client.tickPrice(7, LAST, 6, None)
    client.tickPrice(7, LAST, 5.5, None)
    assert buffered(client, "AAPL") == [(5.0, 0), (6.0, 100), (5.5, 100)]
    assert called == [("AAPL", 5.0, 0), ("AAPL", 6.0, 100), ("AAPL", 5.5, 100)]


def test_by_hand_too_only_trades_of_known_requests_with_a_price_are_ticks() -> None:
    client = IBKRClient()
    client.reqid_to_ticker[7] = "AAPL"
    for tick_type in (TickTypeEnum.BID, TickTypeEnum.DELAYED_LAST):
        client.tickPrice(7, tick_type, 5.0, None)
    for tick_type in (TickTypeEnum.BID_SIZE, TickTypeEnum.DELAYED_LAST_SIZE):
        client.tickSize(7, tick_type, Decimal(100))
    for price in (-1.0, 0.0, math.nan, math.inf, UNSET_DOUBLE):
        client.tickPrice(7, LAST, price, None)
    client.tickPrice(8, LAST, 5.0, None)
    client.tickSize(8, LAST_SIZE, Decimal(100))
    assert (client.price_buffer, client.last_volume) == ({}, {})


@every_form
def test_no_trade_from_the_wire_comes_by_the_callbacks_for_hands(
    server_version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []
    for name in ("tickPrice", "tickSize"):
        monkeypatch.setattr(IBKRClient, name, lambda *_, name=name: called.append(name))
    with (
        serving("AAPL", server_version=server_version) as thread,
        connected(thread, "AAPL") as client,
    ):
        req_id = client.ticker_to_reqid["AAPL"]
        encoder = Encoder(server_version)
        sizes = {"": 0, "0": 0, "0.25": 1, "12.5": 13, "1E3": 1000, "NaN": 0, "2147483647": 0}
        for price, size in enumerate(sizes, 1):
            thread.call(thread.gateway.raw, tick_price(server_version, req_id, price, size))
            if size:
                lone = encoder.tick_size(req_id, LAST_SIZE, size)
                thread.call(thread.gateway.raw, lone)
        until(came(client, "AAPL", len(sizes)))
        assert buffered(client, "AAPL") == list(enumerate(sizes.values(), 1))
        assert called == []


# Codes


@pytest.mark.parametrize(
    "details",
    [
        (10090, "Part of it\nis not subscribed.", ""),
        (1700000000000, 10090, "Part of it\nis not subscribed.", ""),
        (10090, "Part of it\nis not subscribed."),
        (1700000000000, 10090, "Part of it\nis not subscribed."),
        (0, 10090, "Part of it\nis not subscribed.", ""),
    ],
    ids=["old", "new", "old within ibapi", "new within ibapi", "new without a time"],
)
def test_error_takes_the_call_forms_of_both_library_generations(
    details: tuple[Any, ...], caplog: pytest.LogCaptureFixture
) -> None:
    client = IBKRClient()
    client.reqid_to_ticker[7] = "AAPL"
    client.error(7, *details)
    (line,) = lines(caplog)
    assert line.startswith("IBKR code 10090: ")
    assert "AAPL" in line
    assert "Part of it is not subscribed." in line


# Farm notices that stand in no table.
FARM_NOTICES = (2105, 2106, 2107, 2119, 2199)
ENDS = (Reaction.END_CONNECTION, Reaction.STOP)
FIND_LISTING = Reaction.FIND_LISTING
GIVES_UP = (Reaction.DROP_TICKER, Reaction.PARK_TICKER, Reaction.NO_LINE)


def test_every_row_of_the_table_of_codes_is_tested() -> None:
    assert {number: (code.level, code.reaction) for number, code in CODES.items()} == {
        number: (level, reaction) for number, (level, reaction, _) in EXPECTED.items()
    }


@pytest.mark.parametrize(
    "number",
    [
        # What becomes of a 200 is shown in test_listings.py.
        *(n for n, (_, r, _) in EXPECTED.items() if r not in ENDS and r is not FIND_LISTING),
        *FARM_NOTICES,
    ],
)
@versions(176, 225)
def test_a_code_is_logged_at_its_level_with_its_ticker_and_its_remedy(
    server_version: int, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    level, reaction, parts = EXPECTED.get(number, (logging.DEBUG, Reaction.NONE, (OWN_WORDS,)))
    with (
        serving("AAPL", "MSFT", server_version=server_version) as thread,
        connected(thread, "AAPL", "MSFT") as client,
    ):
        caplog.clear()
        req_id = client.ticker_to_reqid["AAPL"] if "AAPL" in parts else -1
        thread.call(thread.gateway.send_error, number, OWN_WORDS, req_id)
        trade(thread, "AAPL", 271.5, 100)
        trade(thread, "MSFT", 478.0, 100)
        until(came(client, "MSFT", 478.0))
        gives_up = req_id != -1 and reaction in GIVES_UP
        if gives_up:
            assert buffered(client, "AAPL") == []
        else:
            until(came(client, "AAPL", 271.5))
        start = f"IBKR code {number}: "
        (line,) = [each for each in lines(caplog, ALL_LEVELS) if each.startswith(start)]
        assert all(part in line for part in parts)
        assert level_of(caplog, start) == logging.getLevelName(level)
        assert client.connected
        assert ("AAPL" in client.active_subscriptions) == (not gives_up)
        if req_id != -1:
            assert start + client.ticker_problems["AAPL"] == line


@pytest.mark.parametrize(
    "number", [n for n, (_, reaction, _) in EXPECTED.items() if reaction in ENDS]
)
@versions(176, 225)
def test_a_code_that_ends_the_connection_is_the_reason_in_the_one_line(
    server_version: int, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    _, reaction, parts = EXPECTED[number]
    with serving(server_version=server_version) as thread, connected(thread) as client:
        thread.call(thread.gateway.send_error, number, OWN_WORDS)
        assert ended(client)
        assert not client.connected
        assert client.failure is not None
        assert client.failure.accepted
        assert client.failure.final == (reaction is Reaction.STOP)
        assert [part for part in parts if part not in str(client.failure)] == []
        assert lines(caplog) == [f"IBKR connection closed. {client.failure}"]


@versions(176, 225)
def test_an_unknown_code_is_logged_with_code_and_ticker_and_harms_nothing(
    server_version: int, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        serving("AAPL", server_version=server_version) as thread,
        connected(thread, "AAPL") as client,
    ):
        thread.call(thread.gateway.send_error, 31999, "What {is} %d this?", -1)
        req_id = client.ticker_to_reqid["AAPL"]
        thread.call(thread.gateway.send_error, 31998, "And {that}?", req_id)
        trade(thread, "AAPL", 271.5, 100)
        until(came(client, "AAPL", 271.5))
        assert client.connected
        assert lines(caplog) == [
            "IBKR code 31999: IBKR: What {is} %d this?",
            "IBKR code 31998: AAPL: And {that}?",
        ]


# Subscriptions


@every_form
@pytest.mark.parametrize("name", ["BRK.B", "BRK/B"])
def test_a_share_class_is_asked_for_as_ibkr_writes_it_and_rows_keep_the_news_name(
    server_version: int, name: str
) -> None:
    called: list[str] = []
    with (
        serving("BRK B", server_version=server_version) as thread,
        connected(thread, name, price_callback=lambda *tick: called.append(tick[0])) as client,
    ):
        assert requested(thread, "reqMktData") == ["BRK B"]
        assert client.active_subscriptions == {name}
        trade(thread, "BRK B", 503.25, 10)
        until(lambda: called)
        assert called == [name]
        assert list(client.get_and_clear_buffer()) == [name]


@every_form
def test_update_subscriptions_asks_for_what_is_new_and_cancels_what_is_not_needed(
    server_version: int, caplog: pytest.LogCaptureFixture
) -> None:
    tickers = ["AAPL", "MSFT", "NVDA", "TSLA"]
    with (
        serving(*tickers, server_version=server_version) as thread,
        connected(thread) as client,
    ):
        client.update_subscriptions({"AAPL", "MSFT"})
        msft = client.ticker_to_reqid["MSFT"]
        client.update_subscriptions({"AAPL", "MSFT"})
        client.update_subscriptions({"AAPL", "NVDA", "TSLA"})
        assert client.active_subscriptions == {"AAPL", "NVDA", "TSLA"}
        assert [line for line in lines(caplog, logging.INFO) if "active" in line] == [
            "Subscriptions: +2 -0 = 2 active",
            "Subscriptions: +2 -1 = 3 active",
        ]
        until(lambda: requested(thread, "reqMktData") == ["AAPL", "MSFT", "NVDA", "TSLA"])
        about_data = [r for r in thread.gateway.requests if r.kind.endswith("MktData")]
        assert about_data[2][2:5] == ("cancelMktData", msft, "")
        assert requested(thread, "cancelMktData") == [""]
        for number, ticker in enumerate(tickers, 1):
            trade(thread, ticker, number, 1)
        until(came(client, "TSLA", 4))
        assert set(client.get_and_clear_buffer()) == {"AAPL", "NVDA", "TSLA"}


def test_subscribing_twice_asks_once() -> None:
    with serving("AAPL", "MSFT") as thread, connected(thread, "AAPL") as client:
        assert client.subscribe_ticker("AAPL") is True
        assert client.subscribe_ticker("MSFT") is True
        until(lambda: requested(thread, "reqMktData") == ["AAPL", "MSFT"])


def test_nothing_is_subscribed_without_a_connection(caplog: pytest.LogCaptureFixture) -> None:
    client = IBKRClient()
    assert client.subscribe_ticker("AAPL") is False
    assert client.active_subscriptions == set()
    assert lines(caplog) == ["Cannot subscribe AAPL: not connected to IBKR."]


def test_unsubscribing_forgets_buffered_ticks_and_those_that_come_late() -> None:
    with serving("AAPL", "MSFT") as thread, connected(thread, "AAPL", "MSFT") as client:
        trade(thread, "AAPL", 271.5, 100)
        trade(thread, "MSFT", 478.0, 100)
        until(came(client, "MSFT", 478.0))
        old_id = client.ticker_to_reqid["AAPL"]
        client.unsubscribe_ticker("AAPL")
        assert list(client.price_buffer) == ["MSFT"]
        assert "AAPL" not in client.last_volume
        assert client.subscribe_ticker("AAPL")
        assert client.ticker_to_reqid["AAPL"] != old_id
        encoder = Encoder(client.serverVersion())
        thread.call(thread.gateway.raw, encoder.tick_price(old_id, LAST, 99.0, "100"))
        trade(thread, "MSFT", 479.0, 100)
        until(came(client, "MSFT", 479.0))
        assert 99.0 not in [price for price, _ in buffered(client, "AAPL")]


# The buffer


def test_the_whole_buffer_is_handed_over_as_it_is() -> None:
    with serving("AAPL", "MSFT") as thread, connected(thread, "AAPL", "MSFT") as client:
        trade(thread, "AAPL", 271.5, 100)
        trade(thread, "MSFT", 478.0, 100)
        until(came(client, "MSFT", 478.0))
        lists = dict(client.price_buffer)
        taken = client.get_and_clear_buffer()
        assert {t: id(ticks) for t, ticks in taken.items()} == {t: id(lists[t]) for t in lists}
        assert client.get_and_clear_buffer() == {}
        trade(thread, "AAPL", 272.0, 100)
        until(came(client, "AAPL", 272.0))
        assert [tick["price"] for tick in taken["AAPL"]] == [271.5]


def test_some_tickers_ticks_are_handed_over_and_the_rest_stays() -> None:
    with serving("AAPL", "MSFT") as thread, connected(thread, "AAPL", "MSFT") as client:
        trade(thread, "AAPL", 271.5, 100)
        trade(thread, "MSFT", 478.0, 100)
        until(came(client, "MSFT", 478.0))
        lists = dict(client.price_buffer)
        taken = client.get_buffer_for_tickers({"AAPL", "NVDA"})
        assert list(taken) == ["AAPL"]
        assert taken["AAPL"] is lists["AAPL"]
        assert client.price_buffer["MSFT"] is lists["MSFT"]
        assert client.get_buffer_for_tickers({"AAPL"}) == {}
        assert buffered(client, "MSFT") == [(478.0, 100)]


@pytest.mark.parametrize(
    "drain",
    [
        IBKRClient.get_and_clear_buffer,
        lambda client: client.get_buffer_for_tickers({"AAPL", "MSFT"}),
    ],
    ids=["all", "some"],
)
def test_the_buffer_keeps_the_newest_and_what_is_pushed_out_is_counted_and_logged(
    drain: Callable[[IBKRClient], dict[str, list[dict[str, Any]]]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert trades.MAX_TICKS_PER_TICKER == 5000
    monkeypatch.setattr(trades, "MAX_TICKS_PER_TICKER", 50)
    with serving("AAPL", "MSFT") as thread, connected(thread, "AAPL", "MSFT") as client:
        thread.call(thread.gateway.burst, "AAPL", range(1, 64), 100)
        thread.call(thread.gateway.burst, "MSFT", range(1, 51), 100)
        until(came(client, "MSFT", 50))
        taken = drain(client)
        assert [tick["price"] for tick in taken["AAPL"]] == list(range(14, 64))
        assert [tick["price"] for tick in taken["MSFT"]] == list(range(1, 51))
        assert client.ticks_pushed_out == 13
        (line,) = lines(caplog)
        assert line.startswith("Dropped 13 ticks of AAPL: over 50 ")
        drain(client)
        assert len(lines(caplog)) == 1


def test_draining_while_ticks_pour_in_loses_and_doubles_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bursts = [[float(n) for n in range(start, start + 2000)] for start in range(1, 20_001, 2000)]
    monkeypatch.setattr(trades, "MAX_TICKS_PER_TICKER", 10**9)
    drained: list[tuple[list[dict[str, Any]], int]] = []
    done = threading.Event()

    def drain(client: IBKRClient) -> None:
        for number in itertools.count():
            last = done.is_set()
            some = client.get_buffer_for_tickers({"AAPL"}) if number % 2 else None
            taken = client.get_and_clear_buffer() if some is None else some
            for ticks in taken.values():
                # A tick that comes into the list from here on would be lost on its owner.
                drained.append((ticks, len(ticks)))
            if last and not taken:
                return

    called: list[float] = []
    switch_interval_s = sys.getswitchinterval()
    with (
        serving("AAPL") as thread,
        connected(thread, "AAPL", price_callback=lambda *tick: called.append(tick[1])) as client,
    ):
        reader = threading.Thread(target=drain, args=[client])
        sys.setswitchinterval(1e-5)
        try:
            reader.start()
            for prices in bursts:
                thread.call(thread.gateway.burst, "AAPL", prices, 100)
            until(lambda: len(called) == 20_000)
        finally:
            sys.setswitchinterval(switch_interval_s)
            done.set()
            reader.join(DEADLINE_S)
    assert called == list(itertools.chain(*bursts))
    assert [tick["price"] for ticks, length in drained for tick in ticks[:length]] == called
    assert len(drained) > 2


# What arrives


@every_form
@pytest.mark.parametrize("total_bytes", [4096, 8192, 65536])
def test_a_burst_that_ends_on_a_full_read_is_delivered_whole(
    server_version: int, total_bytes: int
) -> None:
    with (
        serving("AAPL", server_version=server_version) as thread,
        connected(thread, "AAPL") as client,
    ):
        prices = [100 + number / 8 for number in range(total_bytes // 48)]
        burst = thread.gateway.burst
        assert thread.call(burst, "AAPL", prices, 100, total_bytes=total_bytes) == total_bytes
        until(lambda: len(buffered(client, "AAPL")) == len(prices))
        assert buffered(client, "AAPL") == [(price, 100) for price in prices]


@every_form
def test_messages_may_be_split_at_every_byte(server_version: int) -> None:
    with (
        serving("AAPL", server_version=server_version, describing=False) as thread,
        connected(thread, "AAPL") as client,
    ):
        req_id = client.ticker_to_reqid["AAPL"]
        data = tick_price(server_version, req_id, 10.5, "100")
        data += tick_price(server_version, req_id, 10.75, "300")
        for byte in data:
            thread.call(thread.gateway.raw, bytes([byte]))
            time.sleep(0.002)
        until(lambda: len(buffered(client, "AAPL")) == 2)
        assert buffered(client, "AAPL") == [(10.5, 100), (10.75, 300)]


@every_form
def test_messages_may_come_in_pieces_of_any_size(server_version: int, seed: int) -> None:
    dice = random.Random(seed)
    sent = [(dice.randrange(1, 10**6) / 64, dice.randrange(1, 10**6)) for _ in range(400)]
    with (
        serving("AAPL", server_version=server_version, describing=False) as thread,
        connected(thread, "AAPL") as client,
    ):
        req_id = client.ticker_to_reqid["AAPL"]
        data = b"".join(tick_price(server_version, req_id, p, str(size)) for p, size in sent)
        while data:
            length = dice.choice([1, 2, 3, 4, 5, 40, 100, 1000])
            thread.call(thread.gateway.raw, data[:length])
            data = data[length:]
        until(lambda: len(buffered(client, "AAPL")) == len(sent))
        assert buffered(client, "AAPL") == sent


def tick_price(server_version: int, req_id: int, price: float, size: str) -> bytes:
    """A TICK_PRICE(LAST) message; without a size where that is empty."""
    whole: bytes = Encoder(server_version).tick_price(req_id, LAST, price, size)
    if size or server_version < 206:
        return whole
    from ibapi.protobuf.TickPrice_pb2 import TickPrice  # older releases come without it

    body = TickPrice(reqId=req_id, tickType=LAST, price=price, attrMask=0).SerializeToString()
    return frame((TICK_PRICE + PROTOBUF).to_bytes(4, "big") + body)


GARBAGE = {
    "a length below zero": lambda _: b"\xff\xff\xff\xff",
    "a web page": lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "one byte more than a message has": lambda _: (MAX_MSG_LEN + 1).to_bytes(4, "big"),
    "a length too great by a few": lambda _: b"\0\0\0\x0a",
    "a tick cut short": lambda version: frame(
        b"1\x006\x00" if version < 201 else (TICK_PRICE).to_bytes(4, "big") + b"6\0"
    ),
    "no fields": lambda version: frame(
        b"\xff\xfe\xfd\xfc" if version < 201 else b"\0\0\0\x01\xff\xfe"
    ),
    "no protobuf": lambda version: frame(
        b"what\0" if version < 201 else (TICK_PRICE + PROTOBUF).to_bytes(4, "big") + b"\xff\xff"
    ),
}


@every_form
@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_garbage_ends_the_connection_with_one_line_and_nothing_else(
    server_version: int, garbage: Callable[[int], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    with (
        serving("AAPL", server_version=server_version) as thread,
        connected(thread, "AAPL", client_id=11) as other,
        connected(thread, "AAPL") as client,
    ):
        thread.call(thread.gateway.raw, garbage(server_version), client_id=10)

        def cut_off() -> bool:
            # A wrong length shows only when more has come.
            trade(thread, "AAPL", 271.5, 100)
            return not client.connected

        until(cut_off)
        assert ended(client)
        # The library may say more of its own, by a code: 508 bad message.
        own = [line for line in lines(caplog) if not line.startswith("IBKR code 508: ")]
        assert own == [f"IBKR connection closed. {client.failure}"]
        assert lines(caplog, logging.ERROR) == []
        assert client.failure is not None
        assert client.failure.accepted
        trade(thread, "AAPL", 272.0, 100)
        until(came(other, "AAPL", 272.0))
        assert other.connected


# Connections that fail


@contextmanager
def nothing_listens() -> Iterator[tuple[str, int]]:
    with socket.socket() as holder:
        holder.bind((HOST, 0))
        yield HOST, holder.getsockname()[1]


@contextmanager
def a_handshake(handshake: Handshake) -> Iterator[tuple[str, int]]:
    with serving() as thread:
        thread.gateway.handshake = handshake
        yield HOST, thread.gateway.port


@contextmanager
def a_web_server() -> Iterator[tuple[str, int]]:
    class Handler(http.server.BaseHTTPRequestHandler):
        timeout = DEADLINE_S

    with http.server.ThreadingHTTPServer((HOST, 0), Handler) as server:
        server.daemon_threads = True
        serving_thread = threading.Thread(target=server.serve_forever, args=[0.01], daemon=True)
        serving_thread.start()
        try:
            yield HOST, server.server_port
        finally:
            server.shutdown()


@contextmanager
def a_taken_client_id() -> Iterator[tuple[str, int]]:
    with serving() as thread, connected(thread, client_id=10):
        yield HOST, thread.gateway.port


@contextmanager
def an_unknown_host() -> Iterator[tuple[str, int]]:
    yield "no-such-host.invalid", 7497


@contextmanager
def an_impossible_host() -> Iterator[tuple[str, int]]:
    yield "127..0.1", 7497


CLOSED = ("closed the connection during the handshake", "Trusted IPs")
# Who answers, whether the connection was accepted, the cause and the remedy.
FAILURES: dict[
    str, tuple[Callable[[], AbstractContextManager[tuple[str, int]]], bool, tuple[str, ...]]
] = {
    "nothing listens": (nothing_listens, False, ("refused", "IBKR_PORT", "start TWS")),
    "silent": (
        lambda: a_handshake(Handshake.SILENT),
        True,
        ("accepted the connection but sends nothing", "IBKR_PORT"),
    ),
    "an answer in HTTP": (
        lambda: a_handshake(Handshake.NOT_TWS),
        True,
        ("is not TWS", "IBKR_PORT"),
    ),
    "a web server": (a_web_server, True, ("sends nothing", "IBKR_PORT")),
    "closes at once": (lambda: a_handshake(Handshake.CLOSE), True, CLOSED),
    "id in use": (a_taken_client_id, True, ("Client id 10 is in use", "IBKR_CLIENT_ID")),
    "unknown host": (an_unknown_host, False, ("no-such-host.invalid", "IBKR_HOST")),
    "impossible host": (an_impossible_host, False, ("127..0.1", "IBKR_HOST")),
    "closes after its version": (
        lambda: a_handshake(Handshake.CLOSE_AFTER_VERSION),
        True,
        CLOSED,
    ),
}


@pytest.mark.usefixtures("short_timeout")
@pytest.mark.parametrize(("answering", "accepted", "parts"), FAILURES.values(), ids=FAILURES)
def test_a_failed_connection_gives_false_and_one_line_with_cause_and_remedy(
    answering: Callable[[], AbstractContextManager[tuple[str, int]]],
    accepted: bool,
    parts: tuple[str, ...],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with answering() as (host, port):
        client = IBKRClient(host, port, client_id=10)
        start = time.monotonic()
        assert client.connect_and_run() is False
        assert time.monotonic() - start < 15
        assert not client.connected
        assert client.failure is not None
        assert client.failure.accepted is accepted
        assert lines(caplog) == [f"No connection to IBKR: {client.failure}"]
        assert level_of(caplog, "No connection to IBKR") == "ERROR"
        assert [part for part in parts if part not in str(client.failure)] == []


@contextmanager
def a_first_address(what: str, port: int) -> Iterator[None]:
    """Something at ::1, on the gateway's port."""
    if what == "nothing":
        yield
        return
    with socket.create_server(("::1", port), family=socket.AF_INET6) as listener:
        peers: list[socket.socket] = []

        def take() -> None:
            with suppress(OSError):
                while True:
                    peers.append(listener.accept()[0])
                    if what == "another program":
                        peers[-1].sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    if what != "silence":
                        peers[-1].close()

        threading.Thread(target=take, daemon=True).start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            for peer in peers:
                peer.close()


@pytest.fixture
def localhost(monkeypatch: pytest.MonkeyPatch) -> str:
    """A host that is ::1 first and 127.0.0.1 after it."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no ::1")
    real = socket.getaddrinfo

    def resolve(host: str, *details: Any, **named: Any) -> Any:
        if host != "localhost":
            return real(host, *details, **named)
        return [found for each in ("::1", HOST) for found in real(each, *details, **named)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return "localhost"


@pytest.mark.parametrize("what", ["nothing", "another program", "a hang-up", "silence"])
def test_each_address_of_the_host_is_tried_until_tws_answers_at_one(
    what: str, localhost: str, caplog: pytest.LogCaptureFixture
) -> None:
    with serving("AAPL") as thread, a_first_address(what, thread.gateway.port):
        client = IBKRClient(localhost, thread.gateway.port)
        assert client.connect_and_run(), client.failure
        assert client.subscribe_ticker("AAPL")
        until(lambda: requested(thread, "reqMktData") == ["AAPL"])
        trade(thread, "AAPL", 271.5, 100)
        until(came(client, "AAPL", 271.5))
        assert lines(caplog) == []
        client.disconnect_safely()
        assert ended(client)


def test_where_tws_answers_at_no_address_the_failure_is_that_of_one_where_something_listens(
    localhost: str,
) -> None:
    with nothing_listens() as (_, port), a_first_address("another program", port):
        client = IBKRClient(localhost, port)
        assert client.connect_and_run() is False
        assert f"What listens on [::1]:{port} is not TWS" in str(client.failure)
        assert ended(client)


def test_an_attempt_is_given_up_in_less_than_10_s() -> None:
    # That it is given up at this time is shown with a shorter one.
    assert ibkr_client.DURATIONS.connect_timeout_s < 10


def test_a_failure_is_not_logged_again_while_it_stays_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with nothing_listens() as (host, port):
        first, second, third = (IBKRClient(host, port) for _ in range(3))
        assert first.connect_and_run() is False
        caplog.clear()
        second.failure = first.failure
        assert second.connect_and_run() is False
        assert str(second.failure) == str(first.failure)
        assert lines(caplog) == []
        assert level_of(caplog, "No connection to IBKR") == "DEBUG"
        third.failure = GatewayError("Something else.", accepted=True)
        assert third.connect_and_run() is False
        assert len(lines(caplog, logging.ERROR)) == 1


@pytest.mark.usefixtures("short_timeout")
def test_a_client_that_was_connected_before_never_takes_that_for_a_new_connection() -> None:
    with serving() as thread:
        client = IBKRClient(HOST, thread.gateway.port)
        assert client.connect_and_run() is True
        client.disconnect_safely()
        thread.gateway.handshake = Handshake.SILENT
        with suppress(RuntimeError):  # it may refuse to be used again
            assert client.connect_and_run() is False
            assert "sends nothing" in str(client.failure)
        assert ended(client)


@pytest.mark.usefixtures("short_timeout")
def test_an_attempt_that_was_given_up_never_becomes_ready_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    encoder = Encoder(176)
    with socket.create_server((HOST, 0)) as listener:
        client = IBKRClient(HOST, listener.getsockname()[1])
        assert client.connect_and_run() is False
        peer, _ = listener.accept()
        with peer:
            peer.settimeout(DEADLINE_S)
            with suppress(OSError):
                peer.sendall(
                    encoder.version() + encoder.managed_accounts("DU1") + encoder.next_valid_id(1)
                )
            # TWS frees the client id when the connection ends.
            assert ends(peer)
        assert ended(client)
        assert not client.connected
        assert "ready" not in " ".join(lines(caplog, ALL_LEVELS))


@pytest.mark.usefixtures("short_timeout")
def test_an_answer_that_comes_while_the_attempt_is_given_up_does_not_make_it_ready(
    caplog: pytest.LogCaptureFixture,
) -> None:
    given_up = threading.Event()

    def hold_up(record: logging.LogRecord) -> bool:
        # On the API thread, between the two messages that TWS answers with.
        if record.getMessage().startswith("IBKR account"):
            given_up.wait(DEADLINE_S)
        return True

    logger = logging.getLogger("ibkr_client")
    logger.addFilter(hold_up)
    try:
        with serving() as thread:
            client = IBKRClient(HOST, thread.gateway.port)
            assert client.connect_and_run() is False
            given_up.set()
            assert ended(client)
            assert not client.connected
            assert "ready" not in " ".join(lines(caplog, ALL_LEVELS))
            assert len(lines(caplog)) == 1
            until(lambda: not thread.gateway.sessions)
    finally:
        logger.removeFilter(hold_up)


def ends(peer: socket.socket) -> bool:
    """Read up to the end of the connection."""
    with suppress(ConnectionResetError):
        while peer.recv(65536):
            pass
    return True


# Connections that end


@every_form
def test_a_dropped_connection_is_noticed_and_logged_once_with_the_reason(
    server_version: int, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        serving("AAPL", server_version=server_version) as thread,
        connected(thread, "AAPL") as client,
    ):
        thread.call(thread.gateway.drop)
        assert ended(client)
        assert not client.connected
        assert client.state is ConnectionState.DISCONNECTED
        assert client.failure is not None
        assert client.failure.accepted
        assert lines(caplog) == [f"IBKR connection closed. {client.failure}"]
        assert level_of(caplog, "IBKR connection closed.") == "WARNING"
        assert client.subscribe_ticker("MSFT") is False


@every_form
def test_ticks_that_come_just_before_the_end_of_the_connection_are_kept(
    server_version: int,
) -> None:
    with (
        serving("AAPL", server_version=server_version) as thread,
        connected(thread, "AAPL") as client,
    ):
        gateway = thread.gateway

        def tell_and_leave() -> None:
            gateway.burst("AAPL", range(1, 101), 100)
            gateway.drop()

        thread.call(tell_and_leave)
        assert ended(client)
        assert buffered(client, "AAPL") == [(price, 100) for price in range(1, 101)]


@every_form
def test_disconnect_safely_cancels_all_subscriptions_and_ends_the_thread(
    server_version: int, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        serving("AAPL", "MSFT", server_version=server_version) as thread,
        connected(thread, "AAPL", "MSFT") as client,
    ):
        ids = sorted(client.ticker_to_reqid.values())
        start = time.monotonic()
        client.disconnect_safely()
        took_s = time.monotonic() - start
        assert client.api_thread is not None
        assert not client.api_thread.is_alive()
        assert not client.connected
        assert took_s < 2
        # The end is not blamed on TWS.
        assert str(client.failure) == "newshead ended it."
        until(lambda: not thread.gateway.sessions)
        cancelled = [r.req_id for r in thread.gateway.requests if r.kind == "cancelMktData"]
        assert sorted(cancelled) == ids
        assert lines(caplog) == []


def test_disconnect_safely_ends_the_thread_of_a_gateway_that_neither_reads_nor_answers() -> None:
    encoder = Encoder(176)
    with socket.create_server((HOST, 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client = IBKRClient(HOST, listener.getsockname()[1])
        connecting = threading.Thread(target=client.connect_and_run)
        connecting.start()
        peer, _ = listener.accept()
        with peer:
            peer.sendall(
                encoder.version() + encoder.managed_accounts("DU1") + encoder.next_valid_id(1)
            )
            connecting.join(DEADLINE_S)
            assert client.connected
            # More than the buffers between the two take: the client cannot send any more.
            client.conn.sendMsg(bytes(20_000_000))
            client.update_subscriptions({"AAPL"})
            client.disconnect_safely()
            assert client.api_thread is not None
            assert not client.api_thread.is_alive()
            assert not client.connected


def test_disconnect_safely_ends_an_attempt_under_way() -> None:
    with serving() as thread:
        thread.gateway.handshake = Handshake.SILENT
        client = IBKRClient(HOST, thread.gateway.port)
        answers: list[bool] = []
        attempt = threading.Thread(target=lambda: answers.append(client.connect_and_run()))
        attempt.start()
        until(lambda: client.state is ConnectionState.SOCKET_OPEN)
        client.disconnect_safely()
        attempt.join(ibkr_client.DURATIONS.connect_timeout_s / 2)
        assert answers == [False]
        assert ended(client)


def test_disconnect_safely_may_be_called_by_price_callback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with serving("AAPL") as thread:
        client = IBKRClient(HOST, thread.gateway.port)
        client.price_callback = lambda *_: client.disconnect_safely()
        assert client.connect_and_run()
        assert client.subscribe_ticker("AAPL")
        until(lambda: requested(thread, "reqMktData"))
        trade(thread, "AAPL", 271.5, 100)
        assert ended(client)
        until(lambda: requested(thread, "cancelMktData") == [""])
        assert lines(caplog) == []


def test_disconnect_safely_does_nothing_without_a_connection() -> None:
    client = IBKRClient()
    client.disconnect_safely()
    assert client.state is ConnectionState.DISCONNECTED


# Pacing


def test_requests_are_paced_below_what_tws_takes_in_a_second() -> None:
    symbols = [f"T{number:03}" for number in range(120)]
    counts = []
    # A machine that stalls can squeeze requests together on their way; not three times in a row.
    for _ in range(3):
        with serving(*symbols) as thread, connected(thread) as client:
            client.update_subscriptions(set(symbols))
            until(lambda: len(requested(thread, "reqMktData")) == len(symbols))
            assert requested(thread, "reqMktData") == symbols
            at = [request.at for request in thread.gateway.requests]
            # A little more than a second, since the way to a real TWS is not always as long.
            counts.append(max(sum(a <= b < a + 1.05 for b in at) for a in at))
        if counts[-1] <= 50:
            return
    pytest.fail(f"in the busiest second came {counts} requests")


def test_the_newest_headline_is_asked_for_before_all_that_waits_to_be_sent() -> None:
    symbols = [f"T{number:03}" for number in range(60)]
    with serving(*symbols, "NEW1", "NEW2") as thread, connected(thread) as client:
        client.update_subscriptions(set(symbols))
        client.subscribe_ticker("NEW1")
        client.subscribe_ticker("NEW2")
        until(lambda: len(requested(thread, "reqMktData")) == len(symbols) + 2)
        asked = requested(thread, "reqMktData")
    # Some left at once, before the new ones came.
    assert max(asked.index("NEW1"), asked.index("NEW2")) < 30
    assert [ticker for ticker in asked if ticker in symbols] == symbols


# Paper or live


@pytest.mark.parametrize(
    ("port", "accounts", "mode", "contradiction"),
    [
        (7497, "DU1234567", "PAPER", False),
        (4002, "DF1234567", "PAPER", False),
        (7496, "U1234567", "LIVE", False),
        (4001, "F1234567", "LIVE", False),
        (7497, "U1234567", "LIVE", True),
        (4002, "F1234567,U1234568", "LIVE", True),
        (7496, "DU1234567", "PAPER", True),
        (4001, "DU1234567,DU1234568", "PAPER", True),
        (5000, "U1234567", "LIVE", False),
        (5000, "DU1234567", "PAPER", False),
        (7497, "", "PAPER", False),
        (7496, "", "LIVE", False),
        (5000, "", "UNKNOWN", False),
    ],
)
def test_the_account_decides_paper_or_live_and_one_warning_says_if_the_port_contradicts_it(
    port: int,
    accounts: str,
    mode: str,
    contradiction: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = IBKRClient(port=port)
    client.managedAccounts(accounts)
    assert client.mode == mode
    assert len(lines(caplog)) == contradiction
    if contradiction:
        assert f"{mode} account on port {port}" in lines(caplog)[0]
    if accounts:
        assert f": {mode} trading." in lines(caplog, logging.INFO)[0]


@versions(176, 225)
def test_account_ids_are_masked_in_the_log(
    server_version: int, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        serving(server_version=server_version, account="U7654321") as thread,
        connected(thread) as client,
    ):
        assert client.mode == "LIVE"
    logged = lines(caplog, ALL_LEVELS)
    assert "IBKR account ******21: LIVE trading." in logged
    assert "7654" not in " ".join(logged)


# get_ibkr_client


@pytest.fixture
def _no_client_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ibkr_client, "_ibkr_client", None)


@pytest.mark.usefixtures("_no_client_yet")
def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux's /proc")
def test_a_connection_that_ends_in_the_middle_of_a_read_leaves_no_file_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        before = open_files()
        ours = socket.create_connection(listener.getsockname())
        tws, _ = listener.accept()
        connection = TwsSocket(ours)
        tws.sendall(frame(b"one"))
        messages = connection.messages()
        assert next(messages) == [b"one"]
        connection.close()
        tws.close()
        # Who reads from it may be remembered for long.
        assert open_files() == before
        del messages


def test_get_ibkr_client_has_the_defaults_of_a_paper_tws_on_this_machine() -> None:
    client = get_ibkr_client()
    assert (client.host, client.port, client.client_id) == (HOST, 7497, 10)


@pytest.mark.usefixtures("_no_client_yet")
def test_get_ibkr_client_reads_the_environment_over_dot_env(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path(".env").write_text("IBKR_HOST=10.0.0.5\nIBKR_PORT=4001\nIBKR_CLIENT_ID=11\n")
    monkeypatch.setenv("IBKR_PORT", "4002")
    client = get_ibkr_client()
    assert (client.host, client.port, client.client_id) == ("10.0.0.5", 4002, 11)


@pytest.mark.usefixtures("_no_client_yet")
def test_arguments_of_get_ibkr_client_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IBKR_HOST", "10.0.0.5")
    monkeypatch.setenv("IBKR_PORT", "4002")
    monkeypatch.setenv("IBKR_CLIENT_ID", "11")
    client = get_ibkr_client("10.0.0.6", 4001, 0)
    assert (client.host, client.port, client.client_id) == ("10.0.0.6", 4001, 0)


@pytest.mark.usefixtures("_no_client_yet")
def test_get_ibkr_client_gives_one_client() -> None:
    assert get_ibkr_client() is get_ibkr_client("10.0.0.6")


@pytest.mark.usefixtures("_no_client_yet")
def test_a_wrong_port_in_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IBKR_PORT", "abc")
    with pytest.raises(ConfigurationError, match=r"IBKR_PORT .* not 'abc'"):
        get_ibkr_client()
