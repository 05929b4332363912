"""The simulated gateway, asked by real clients over real sockets."""
# ruff: noqa: N802 -- ibapi's callbacks are named by IBKR

import asyncio
import importlib
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest
from deadlines import DEADLINE_S
from ibapi.client import EClient
from ibapi.contract import Contract
from ibapi.message import IN
from ibapi.server_versions import MAX_CLIENT_VER
from ibapi.wrapper import EWrapper

from simulator import Gateway, GatewayThread, Handshake, Market, MarketError, Trade, session
from simulator.encode import Encoder

ROOT = Path(__file__).resolve().parents[2]
QUIET_S = 0.15

LAST, LAST_SIZE, VOLUME, LAST_TIMESTAMP = 4, 5, 8, 45
TICK_PRICE, TICK_SIZE, ERR_MSG, NEXT_VALID_ID, MANAGED_ACCTS, TICK_STRING = 1, 2, 4, 9, 15, 46
PROTOBUF = 200


def versions(*numbers: int) -> pytest.MarkDecorator:
    """Run a test at each server version that the installed ibapi can speak."""
    return pytest.mark.parametrize(
        "server_version",
        [
            pytest.param(
                number,
                marks=pytest.mark.skipif(number > MAX_CLIENT_VER, reason="newer than ibapi"),
            )
            for number in numbers
        ],
    )


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


async def soon(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 -- nothing signals it
            await asyncio.sleep(0.01)


class Official(EWrapper, EClient):  # type: ignore[misc]
    """IBKR's own client, keeping what it was called with."""

    def __init__(self) -> None:
        EClient.__init__(self, self)
        self.calls: list[tuple[Any, ...]] = []
        self.details: list[Any] = []

    def named(self, name: str) -> list[tuple[Any, ...]]:
        return [call[1:] for call in self.calls if call[0] == name]

    @property
    def ticks(self) -> list[tuple[Any, ...]]:
        return [call for call in self.calls if call[0] in ("tickPrice", "tickSize", "tickString")]

    def error(self, req_id: int, *rest: Any) -> None:
        # Newer releases put the error's time before its code.
        code, text = rest[-3:-1]
        self.calls.append(("error", req_id, code, text))

    def managedAccounts(self, accountsList: str) -> None:  # noqa: N803
        self.calls.append(("managedAccounts", accountsList))

    def nextValidId(self, orderId: int) -> None:  # noqa: N803
        self.calls.append(("nextValidId", orderId))

    def currentTime(self, time: int) -> None:
        self.calls.append(("currentTime", time))

    def marketDataType(self, reqId: int, marketDataType: int) -> None:  # noqa: N803
        self.calls.append(("marketDataType", reqId, marketDataType))

    def tickPrice(self, reqId: int, tickType: int, price: float, attrib: Any) -> None:  # noqa: ARG002, N803
        self.calls.append(("tickPrice", reqId, tickType, price))

    def tickSize(self, reqId: int, tickType: int, size: Any) -> None:  # noqa: N803
        self.calls.append(("tickSize", reqId, tickType, float(size)))

    def tickString(self, reqId: int, tickType: int, value: str) -> None:  # noqa: N803
        self.calls.append(("tickString", reqId, tickType, value))

    def tickSnapshotEnd(self, reqId: int) -> None:  # noqa: N803
        self.calls.append(("tickSnapshotEnd", reqId))

    def contractDetails(self, reqId: int, contractDetails: Any) -> None:  # noqa: N803
        self.details.append(contractDetails)
        self.calls.append(("contractDetails", reqId))

    def contractDetailsEnd(self, reqId: int) -> None:  # noqa: N803
        self.calls.append(("contractDetailsEnd", reqId))

    def historicalData(self, reqId: int, bar: Any) -> None:  # noqa: N803
        prices = bar.open, bar.high, bar.low, bar.close
        self.calls.append(("historicalData", reqId, bar.date, *prices, float(bar.volume)))

    def historicalDataEnd(self, reqId: int, start: str, end: str) -> None:  # noqa: N803
        self.calls.append(("historicalDataEnd", reqId, start, end))


@contextmanager
def official_client(gateway: Gateway, client_id: int = 1) -> Iterator[Official]:
    client = Official()
    client.connect("127.0.0.1", gateway.port, client_id)
    thread = threading.Thread(target=client.run, daemon=True)
    thread.start()
    until(lambda: client.named("nextValidId") or not client.isConnected())
    yield client
    # Its own `disconnect`, called from here, forgets the server's version, which the thread needs
    # for the messages still queued.
    client.setConnState(EClient.DISCONNECTED)
    thread.join(DEADLINE_S)


def stock(symbol: str, primary_exchange: str = "") -> Any:
    contract = Contract()
    contract.symbol = symbol
    contract.secType = "STK"
    contract.exchange = "SMART"
    contract.currency = "USD"
    contract.primaryExchange = primary_exchange
    return contract


class Plain:
    """A client of a plain socket, for what must be seen byte by byte."""

    def __init__(self, gateway: Gateway) -> None:
        self.socket = socket.create_connection(("127.0.0.1", gateway.port), DEADLINE_S)

    def __enter__(self) -> "Plain":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, payload: bytes) -> None:
        self.socket.sendall(struct.pack("!I", len(payload)) + payload)

    def hello(self, versions: str = "v100..225") -> None:
        self.socket.sendall(b"API\0")
        self.send(versions.encode())

    def exactly(self, length: int) -> bytes:
        received = b""
        while len(received) < length:
            data = self.socket.recv(length - len(received))
            assert data, f"closed after {received!r}"
            received += data
        return received

    def message(self) -> bytes:
        (length,) = struct.unpack("!I", self.exactly(4))
        return self.exactly(length)

    def ended(self) -> bool:
        """Read up to the end of the connection."""
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionResetError:
            pass
        return True

    def quiet(self) -> bool:
        """Tell whether nothing comes for a while, the connection being open."""
        self.socket.settimeout(QUIET_S)
        try:
            self.socket.recv(1)
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(DEADLINE_S)
        return False

    def start(self, server_version: int, client_id: int) -> list[int]:
        """Connect; return the message ids up to the notice that comes last."""
        self.hello(f"v100..{server_version}")
        assert self.message().split(b"\0")[0] == str(server_version).encode()
        if server_version >= 213:
            request = protobuf("StartApiRequest")(clientId=client_id)
            self.send((71 + PROTOBUF).to_bytes(4, "big") + request.SerializeToString())
        elif server_version >= 201:
            self.send((71).to_bytes(4, "big") + fields(2, client_id, ""))
        else:
            self.send(fields(71, 2, client_id, ""))
        ids = []
        last = b""
        while b"secdefnj" not in last:
            last = self.message()
            ids.append(message_id(last, server_version))
        return ids

    def subscribe(self, server_version: int, req_id: int, symbol: str) -> None:
        """Ask for a stock without a trade so far, and read what comes then."""
        if server_version >= 206:
            proto_contract = {
                "symbol": symbol,
                "secType": "STK",
                "exchange": "SMART",
                "currency": "USD",
            }
            request = protobuf("MarketDataRequest")(reqId=req_id, contract=proto_contract)
            self.send((1 + PROTOBUF).to_bytes(4, "big") + request.SerializeToString())
        else:
            contract = (0, symbol, "STK", "", 0, "", "", "SMART", "", "USD", "", "")
            self.send(fields(1, 11, req_id, *contract, 0, "", 0, 0, ""))
        self.message()
        self.message()


def fields(*values: object) -> bytes:
    return "".join(f"{value}\0" for value in values).encode()


def protobuf(name: str) -> Any:
    return getattr(importlib.import_module(f"ibapi.protobuf.{name}_pb2"), name)


def message_id(message: bytes, server_version: int) -> int:
    if server_version >= 201:
        return int.from_bytes(message[:4], "big")
    return int(message.split(b"\0")[0])


# What was traded at 15:00:58, at 15:01:01 (twice), at 15:01:06 and at 15:02:00 UTC.
HISTORY_BEGAN: Final = 1_795_618_858
TRADED: Final = [(0, 2.0, 100), (3, 2.5, 50), (3, 2.4, 1), (8, 2.1, 10), (62, 3.0, 5)]


def with_past(gateway: Gateway, symbol: str = "ABCD") -> None:
    """Let a stock have been traded then."""
    for seconds, price, size in TRADED:
        gateway.book(symbol).record(price, size, HISTORY_BEGAN + seconds)


def ask_for_bars(
    client: Any, req_id: int, bar_size: str = "5 secs", seconds: int = 62, symbol: str = "ABCD"
) -> None:
    end = datetime.fromtimestamp(HISTORY_BEGAN + 62, UTC)
    past: Any = f"{end:%Y%m%d-%H:%M:%S}", f"{seconds} S", bar_size, "TRADES", 0, 2, False, []
    client.reqHistoricalData(req_id, stock(symbol), *past)


# Clients nobody here wrote


async def test_ib_async_connects_qualifies_a_stock_and_receives_ticks() -> None:
    ib_async = pytest.importorskip("ib_async")
    async with Gateway(Market(symbols=["BRK B"])) as gateway:
        ib = ib_async.IB()
        await ib.connectAsync(
            "127.0.0.1", gateway.port, clientId=7, timeout=DEADLINE_S, raiseSyncErrors=True
        )
        assert ib.managedAccounts() == ["DU1234567"]

        contract = ib_async.Stock("BRK B", "SMART", "USD")
        await ib.qualifyContractsAsync(contract)
        assert (contract.conId, contract.primaryExchange) == (72063691, "NYSE")

        ticker = ib.reqMktData(contract)
        await soon(lambda: gateway.requests[-1].kind == "reqMktData")
        gateway.trade("BRK B", 503.25, 2.5)
        await soon(lambda: ticker.last == 503.25)
        assert (ticker.lastSize, ticker.bid, ticker.ask) == (2.5, 503.24, 503.26)
        assert [request.kind for request in gateway.requests[:2]] == ["startApi", "reqPositions"]
        ib.disconnect()


@versions(176, 187, 200, 201, 203, 205, 206, 207, 213, 225, 226)
def test_the_official_client_is_served_at_every_version(server_version: int) -> None:
    gateway = Gateway(Market(symbols=["AAPL"]), server_version=server_version)
    with GatewayThread(gateway) as thread, official_client(gateway) as client:
        assert client.serverVersion() == server_version
        assert client.named("managedAccounts") == [("DU1234567",)]
        until(lambda: len(client.named("error")) == 3)
        assert [code for _, code, _ in client.named("error")] == [2104, 2106, 2158]

        client.reqMktData(5, stock("AAPL"), "", False, False, [])
        client.reqMktData(6, stock("NOPE"), "", False, False, [])
        client.reqContractDetails(7, stock("AAPL"))
        client.reqCurrentTime()
        until(lambda: client.named("currentTime"))
        assert client.named("marketDataType") == [(5, 1)]
        assert client.named("error")[3:] == [
            (6, 200, "No security definition has been found for the request")
        ]
        assert client.named("contractDetailsEnd") == [(7,)]
        details = client.details[0]
        assert details.contract.symbol == "AAPL"
        assert details.contract.conId == 265598
        assert details.contract.primaryExchange == "NASDAQ"
        assert (details.longName, details.minTick, details.stockType) == (
            "APPLE INC",
            0.01,
            "COMMON",
        )
        assert abs(client.named("currentTime")[0][0] - time.time()) < 15

        thread.call(gateway.trade, "AAPL", 271.5, 0.25)
        until(lambda: ("tickSize", 5, LAST_SIZE, 0.25) in client.ticks)
        assert ("tickPrice", 5, LAST, 271.5) in client.ticks


@versions(176, 225)
def test_a_price_comes_with_its_size_and_the_size_again_after_it(server_version: int) -> None:
    gateway = Gateway(Market(symbols=["AAPL"]), server_version=server_version)
    with GatewayThread(gateway) as thread, official_client(gateway) as client:
        client.reqMktData(5, stock("AAPL"), "", False, False, [])
        until(lambda: client.named("marketDataType"))
        thread.call(gateway.trade, "AAPL", 271.5, 100)
        thread.call(gateway.trade, "AAPL", 271.6, 200)
        until(lambda: ("tickSize", 5, LAST_SIZE, 200.0) in client.ticks)
        until(lambda: len(client.named("tickSize")) == 10)
        trades = [call for call in client.ticks if call[2] in (LAST, LAST_SIZE)]
        # The first size is the price message's own, the second a message of its own.
        assert trades == [
            ("tickPrice", 5, LAST, 271.5),
            ("tickSize", 5, LAST_SIZE, 100.0),
            ("tickSize", 5, LAST_SIZE, 100.0),
            ("tickPrice", 5, LAST, 271.6),
            ("tickSize", 5, LAST_SIZE, 200.0),
            ("tickSize", 5, LAST_SIZE, 200.0),
        ]


@versions(176, 225)
def test_a_trade_at_the_last_price_is_told_by_its_size_alone(server_version: int) -> None:
    gateway = Gateway(Market(symbols=["AAPL"]), server_version=server_version)
    with GatewayThread(gateway) as thread, official_client(gateway) as client:
        client.reqMktData(5, stock("AAPL"), "", False, False, [])
        until(lambda: client.named("marketDataType"))
        thread.call(gateway.trade, "AAPL", 271.5, 100)
        thread.call(gateway.trade, "AAPL", 271.5, 300)
        until(lambda: ("tickSize", 5, LAST_SIZE, 300.0) in client.ticks)
        trades = [call for call in client.ticks if call[2] in (LAST, LAST_SIZE)]
        assert trades == [
            ("tickPrice", 5, LAST, 271.5),
            ("tickSize", 5, LAST_SIZE, 100.0),
            ("tickSize", 5, LAST_SIZE, 100.0),
            ("tickSize", 5, LAST_SIZE, 300.0),
        ]


@versions(176, 225)
def test_a_new_subscriber_is_told_the_state_so_far(server_version: int) -> None:
    gateway = Gateway(Market(symbols=["AAPL"]), server_version=server_version)
    with GatewayThread(gateway) as thread, official_client(gateway) as client:
        for price in (271.5, 272.0, 271.0):
            thread.call(gateway.trade, "AAPL", price, 200)
        client.reqMktData(5, stock("AAPL"), "", True, False, [])
        until(lambda: client.named("tickSnapshotEnd"))
        (timestamp,) = client.named("tickString")
        assert timestamp[1] == LAST_TIMESTAMP
        assert abs(int(timestamp[2]) - time.time()) < 15
        assert dict(call[1:] for call in client.named("tickPrice")) == {
            1: 270.99,
            2: 271.01,
            LAST: 271.0,
            6: 272.0,
            7: 271.0,
        }
        # Volumes are counted in hundreds of shares before version 220.
        volume = 600.0 if server_version >= 220 else 6.0
        assert (5, VOLUME, volume) in client.named("tickSize")


# The form of messages


@versions(200, 201, 203, 207, 213)
def test_each_kind_of_message_is_protobuf_from_its_version_on(server_version: int) -> None:
    gateway = Gateway(Market(), server_version=server_version)
    with GatewayThread(gateway), Plain(gateway) as client:
        accounts, next_id, *notices = client.start(server_version, 1)
    assert accounts == MANAGED_ACCTS + (PROTOBUF if server_version >= 207 else 0)
    assert next_id == NEXT_VALID_ID + (PROTOBUF if server_version >= 213 else 0)
    assert notices == [ERR_MSG + (PROTOBUF if server_version >= 203 else 0)] * 3


@versions(176, 225)
@pytest.mark.parametrize("total_bytes", [4096, 8192, 65536])
@pytest.mark.parametrize("ticks", [1, 60])
def test_a_burst_is_exactly_as_long_as_asked(
    server_version: int, total_bytes: int, ticks: int
) -> None:
    gateway = Gateway(Market(symbols=["AAPL"]), server_version=server_version)
    with GatewayThread(gateway) as thread, Plain(gateway) as client:
        client.start(server_version, 1)
        client.subscribe(server_version, 5, "AAPL")
        prices = [271.5 + number / 100 for number in range(ticks)]
        length = thread.call(gateway.burst, "AAPL", prices, 100, total_bytes=total_bytes)
        assert length == total_bytes

        received = 0
        offset = PROTOBUF if server_version >= 206 else 0
        ids = []
        while received < total_bytes:
            message = client.message()
            received += 4 + len(message)
            ids.append(message_id(message, server_version) - offset)
        assert received == total_bytes
        assert ids.count(TICK_PRICE) == ticks
        assert set(ids) <= {TICK_PRICE, TICK_STRING}
        assert client.quiet()


@versions(176, 225)
def test_a_burst_of_any_length_is_exact(server_version: int) -> None:
    gateway = Gateway(Market(symbols=["AAPL"]), server_version=server_version)
    with GatewayThread(gateway) as thread, Plain(gateway) as client:
        client.start(server_version, 1)
        client.subscribe(server_version, 5, "AAPL")
        shortest = thread.call(gateway.burst, "AAPL", [271.5], 0.5)
        client.exactly(shortest)
        for total_bytes in [*range(shortest, shortest + 300), *range(16450, 16500)]:
            thread.call(gateway.burst, "AAPL", [271.5], 0.5, total_bytes=total_bytes)
            received = 0
            while received < total_bytes:
                received += 4 + len(client.message())
            assert received == total_bytes
        with pytest.raises(ValueError, match="1 bytes longer"):
            thread.call(gateway.burst, "AAPL", [271.5], 0.5, total_bytes=shortest - 1)


# Clients


def test_a_client_id_in_use_is_refused_and_free_again_after_its_client_left() -> None:
    gateway = Gateway(Market())
    with GatewayThread(gateway):
        with official_client(gateway, 3):
            with official_client(gateway, 3) as second:
                until(lambda: not second.isConnected() and second.named("error"))
                assert second.named("error") == [
                    (
                        -1,
                        326,
                        "Unable to connect as the client id is already in use. "
                        "Retry with a unique client id.",
                    )
                ]
            with official_client(gateway, 4) as other:
                assert other.isConnected()
        until(lambda: not gateway.sessions)
        with official_client(gateway, 3) as again:
            assert again.isConnected()


def test_clients_have_their_own_request_ids_and_errors() -> None:
    gateway = Gateway(Market(symbols=["AAPL", "MSFT"]))
    with (
        GatewayThread(gateway) as thread,
        official_client(gateway, 1) as one,
        official_client(gateway, 2) as two,
    ):
        one.reqMktData(5, stock("AAPL"), "", False, False, [])
        two.reqMktData(5, stock("MSFT"), "", False, False, [])
        two.reqMktData(6, stock("AAPL"), "", False, False, [])
        until(lambda: one.named("marketDataType") and len(two.named("marketDataType")) == 2)
        thread.call(gateway.trade, "AAPL", 271.5, 100)
        thread.call(gateway.trade, "MSFT", 478.0, 100)
        thread.call(gateway.send_error, 2103, "broken", client_id=2)
        thread.call(gateway.send_error, 1100, "lost")
        until(lambda: one.named("error")[-1][1] == 1100 and two.named("error")[-1][1] == 1100)
        assert [c for c in one.named("tickPrice") if c[1] == LAST] == [(5, LAST, 271.5)]
        assert [c for c in two.named("tickPrice") if c[1] == LAST] == [
            (6, LAST, 271.5),
            (5, LAST, 478.0),
        ]
        assert 2103 not in [code for _, code, _ in one.named("error")]
        assert (-1, 2103, "broken") in two.named("error")
        with pytest.raises(LookupError, match="no client 9"):
            thread.call(gateway.send_error, 1100, "lost", client_id=9)


def test_an_id_in_use_and_the_cancel_of_an_unknown_one_are_errors() -> None:
    gateway = Gateway(Market(symbols=["AAPL"]))
    with GatewayThread(gateway) as thread, official_client(gateway) as client:
        client.reqMktData(5, stock("AAPL"), "", False, False, [])
        client.reqMktData(5, stock("AAPL"), "", False, False, [])
        client.cancelMktData(5)
        client.cancelMktData(5)
        until(lambda: len(client.named("error")) == 5)
        assert client.named("error")[3:] == [
            (5, 102, "Duplicate ticker ID."),
            (5, 300, "Can't find EId with tickerId:5"),
        ]
        thread.call(gateway.trade, "AAPL", 271.5, 100)
        client.reqCurrentTime()
        until(lambda: client.named("currentTime"))
        assert client.ticks == []


@versions(176, 225)
def test_an_ambiguous_symbol_needs_its_primary_exchange(server_version: int) -> None:
    gateway = Gateway(Market(symbols=["AAPL"]), server_version=server_version)
    gateway.ambiguous.add("AAPL")
    with GatewayThread(gateway), official_client(gateway) as client:
        client.reqMktData(5, stock("AAPL"), "", False, False, [])
        client.reqMktData(6, stock("AAPL", "NASDAQ"), "", False, False, [])
        client.reqContractDetails(7, stock("AAPL"))
        until(lambda: client.named("contractDetailsEnd"))
        assert client.named("error")[3:] == [
            (5, 200, "The contract description specified for AAPL is ambiguous.")
        ]
        assert client.named("marketDataType") == [(6, 1)]
        assert [d.contract.primaryExchange for d in client.details] == ["NASDAQ", "EBS"]


def test_a_symbol_without_live_data_is_served_delayed_on_demand() -> None:
    gateway = Gateway(Market(symbols=["AAPL"]))
    gateway.delayed_only.add("AAPL")
    with GatewayThread(gateway) as thread, official_client(gateway) as client:
        client.reqMktData(5, stock("AAPL"), "", False, False, [])
        client.reqMarketDataType(3)
        client.reqMktData(6, stock("AAPL"), "", False, False, [])
        until(lambda: client.named("marketDataType"))
        assert [error[:2] for error in client.named("error")[3:]] == [(5, 10089), (6, 10167)]
        assert client.named("marketDataType") == [(6, 3)]
        thread.call(gateway.trade, "AAPL", 271.5, 100)
        until(lambda: (6, 71, 100.0) in client.named("tickSize"))
        assert (6, 68, 271.5) in client.named("tickPrice")


@versions(176, 187, 195, 196, 200, 201, 207, 208, 226)
def test_past_bars_are_those_of_what_was_traded(server_version: int) -> None:
    gateway = Gateway(Market(symbols=["ABCD"]), server_version=server_version)
    with GatewayThread(gateway) as thread, official_client(gateway) as client:
        thread.call(with_past, gateway)
        ask_for_bars(client, 7)
        ask_for_bars(client, 8, "1 min", 120)
        until(lambda: len(client.named("historicalDataEnd")) == 2)
        began = HISTORY_BEGAN
        assert client.named("historicalData") == [
            (7, str(began - 3), 2.0, 2.0, 2.0, 2.0, 100.0),
            (7, str(began + 2), 2.5, 2.5, 2.4, 2.4, 51.0),
            (7, str(began + 7), 2.1, 2.1, 2.1, 2.1, 10.0),
            (8, str(began - 58), 2.0, 2.0, 2.0, 2.0, 100.0),
            (8, str(began + 2), 2.5, 2.5, 2.1, 2.1, 61.0),
        ]
        assert [r.detail for r in gateway.requests if r.kind == "reqHistoricalData"] == [
            "5 secs 62 S 20261125-15:02:00",
            "1 min 120 S 20261125-15:02:00",
        ]


async def test_ib_async_is_told_past_bars() -> None:
    ib_async = pytest.importorskip("ib_async")
    async with Gateway(Market(symbols=["ABCD"])) as gateway:
        with_past(gateway)
        ib = ib_async.IB()
        await ib.connectAsync("127.0.0.1", gateway.port, clientId=7, timeout=DEADLINE_S)
        end = datetime.fromtimestamp(HISTORY_BEGAN + 62, UTC)
        found = await ib.reqHistoricalDataAsync(
            ib_async.Stock("ABCD", "SMART", "USD"),
            f"{end:%Y%m%d-%H:%M:%S}",
            *("62 S", "5 secs", "TRADES", False, 2),
        )
        ib.disconnect()
    assert [(bar.open, bar.close, bar.volume, bar.barCount) for bar in found] == [
        (2.0, 2.0, 100.0, 1),
        (2.5, 2.4, 51.0, 2),
        (2.1, 2.1, 10.0, 1),
    ]


def test_requests_for_past_bars_are_refused_as_tws_does() -> None:
    gateway = Gateway(Market(symbols=["ABCD", "EFGH"]))
    with GatewayThread(gateway) as thread, official_client(gateway) as client:
        ask_for_bars(client, 1)
        ask_for_bars(client, 2, symbol="NONE")
        ask_for_bars(client, 3, "7 secs")
        ask_for_bars(client, 4)
        for req_id in range(5, 9):
            ask_for_bars(client, req_id, seconds=req_id)
        ask_for_bars(client, 9, seconds=9)
        client.cancelHistoricalData(10)
        until(lambda: len(client.named("error")) >= 10 + 3)
        thread.call(setattr, gateway, "recalling", False)
        ask_for_bars(client, 11)
        client.cancelHistoricalData(11)
        until(lambda: len(client.named("error")) == 11 + 3)
    codes = {req_id: (code, text) for req_id, code, text in client.named("error") if req_id > 0}
    assert {req_id: code for req_id, (code, _) in codes.items()} == {
        **dict.fromkeys((1, 4, 5, 6, 7, 8, 9, 11), 162),
        2: 200,
        3: 321,
        10: 366,
    }
    paced = {req_id for req_id, (_, text) in codes.items() if "pacing violation" in text}
    # The same again, and the sixth of one stock.
    assert paced == {4, 8, 9}
    assert "no data" in codes[1][1]


def test_all_that_clients_ask_for_is_kept_and_the_unknown_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gateway = Gateway(Market(symbols=["AAPL"]))
    before = time.monotonic()
    with GatewayThread(gateway), official_client(gateway, 4) as client:
        client.reqMarketDataType(3)
        client.reqMktData(5, stock("AAPL", "NASDAQ"), "", False, False, [])
        client.reqScannerParameters()
        client.reqScannerParameters()
        client.reqCurrentTime()
        until(lambda: client.named("currentTime"))
    assert [request[1:] for request in gateway.requests] == [
        (4, "startApi", -1, "", "4"),
        (4, "reqMarketDataType", -1, "", "3"),
        (4, "reqMktData", 5, "AAPL", "NASDAQ"),
        (4, "message 24", -1, "", ""),
        (4, "message 24", -1, "", ""),
        (4, "reqCurrentTime", -1, "", ""),
    ]
    assert before < gateway.requests[0].at < time.monotonic()
    assert [r.getMessage() for r in caplog.records if "does not know" in r.getMessage()] == [
        "Ignoring requests the simulator does not know. kind=message 24"
    ]


# Faults


@pytest.mark.parametrize(
    ("handshake", "answer"),
    [
        (Handshake.CLOSE, b""),
        (Handshake.CLOSE_AFTER_VERSION, b"\0\0\0\x1a176\x00"),
        (Handshake.NOT_TWS, b"HTTP/1.1 400"),
    ],
)
def test_a_handshake_ends_the_way_that_was_set(handshake: Handshake, answer: bytes) -> None:
    gateway = Gateway(Market(), server_version=176)
    gateway.handshake = handshake
    with GatewayThread(gateway), Plain(gateway) as client:
        client.hello()
        assert client.exactly(len(answer)).startswith(answer)
        assert client.ended()


def test_a_silent_handshake_stays_open_and_others_can_connect_later() -> None:
    gateway = Gateway(Market(), server_version=176)
    gateway.handshake = Handshake.SILENT
    with GatewayThread(gateway), Plain(gateway) as client:
        client.hello()
        assert client.quiet()
        gateway.handshake = Handshake.NORMAL
        with official_client(gateway) as other:
            assert other.isConnected()
        assert client.quiet()


def test_a_pending_client_is_served_once_it_is_accepted() -> None:
    gateway = Gateway(Market(), server_version=176)
    gateway.handshake = Handshake.PENDING
    with GatewayThread(gateway) as thread, Plain(gateway) as client:
        client.hello()
        assert client.message().startswith(b"176\0")
        client.send(fields(71, 2, 1, ""))
        assert client.quiet()
        thread.call(gateway.accept)
        assert message_id(client.message(), 176) == IN.MANAGED_ACCTS


@versions(176, 201, 226)
def test_open_orders_are_told_unasked_and_garbled_ones_cannot_be_read(server_version: int) -> None:
    gateway = Gateway(Market(), server_version=server_version)
    gateway.open_orders = 2
    with GatewayThread(gateway), Plain(gateway) as client:
        kind = IN.OPEN_ORDER + (PROTOBUF if server_version >= 203 else 0)
        assert client.start(server_version, 1).count(kind) == 2
    clear = Encoder(server_version).open_order(1)
    assert Encoder(server_version, {IN.OPEN_ORDER}).open_order(1) != clear
    assert Encoder(server_version, {IN.ERR_MSG}).open_order(1) == clear


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"API\0\xff\xff\xff\xff",
        b"API\0\0\0\0\x09v100..175",
        b"API\0\0\0\0\x09v177..225",
        b"API\0\0\0\0\x05hello",
        b"API\0\0\0\0\x09v100..176\0\0\0\x04what",
        b"API\0\0\0\0\x09v100..176\0\0\0\x0671\x002\0x",
    ],
    ids=["not TWS", "too long", "too old", "too new", "no versions", "no message", "no client id"],
)
def test_a_client_that_does_not_speak_as_it_should_is_closed(
    sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = Gateway(Market(), server_version=176)
    with GatewayThread(gateway), Plain(gateway) as client:
        client.socket.sendall(sent)
        assert client.ended()
        until(lambda: not gateway.sessions)
    (logged,) = [record.getMessage() for record in caplog.records if record.levelname != "INFO"]
    assert logged.startswith("Closing a connection that does not speak TWS: ")


def test_a_drop_cuts_every_connection_and_frees_its_id() -> None:
    gateway = Gateway(Market())
    with GatewayThread(gateway) as thread, official_client(gateway, 3) as client:
        with Plain(gateway) as plain:
            plain.start(MAX_CLIENT_VER, 4)
            thread.call(gateway.drop)
            assert plain.ended()
        until(lambda: not client.isConnected())
        with official_client(gateway, 3) as again:
            assert again.isConnected()


def test_a_silent_gateway_reads_and_sends_nothing() -> None:
    gateway = Gateway(Market(symbols=["AAPL"]), server_version=176)
    with GatewayThread(gateway) as thread, Plain(gateway) as client:
        client.start(176, 1)
        client.subscribe(176, 5, "AAPL")
        gateway.silent = True
        client.send(fields(49, 1))
        until(lambda: gateway.requests[-1].kind == "reqCurrentTime")
        thread.call(gateway.trade, "AAPL", 271.5, 100)
        thread.call(gateway.send_error, 1100, "lost")
        thread.call(gateway.raw, b"raw")
        thread.call(gateway.burst, "AAPL", [1.0], 1)
        assert client.quiet()
        gateway.silent = False
        client.send(fields(49, 1))
        assert client.message().startswith(b"49\0")


def test_raw_bytes_go_out_as_they_are() -> None:
    gateway = Gateway(Market())
    with GatewayThread(gateway) as thread, Plain(gateway) as client, Plain(gateway) as other:
        client.start(MAX_CLIENT_VER, 1)
        other.start(MAX_CLIENT_VER, 2)
        thread.call(gateway.raw, b"\xff\0half a mess", client_id=1)
        assert client.exactly(13) == b"\xff\0half a mess"
        assert other.quiet()


def test_a_client_that_does_not_read_is_dropped_and_holds_up_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(session, "MAX_BACKLOG_BYTES", 5_000_000)
    gateway = Gateway(Market(symbols=["AAPL"]), server_version=176)
    with GatewayThread(gateway) as thread, Plain(gateway) as slow, Plain(gateway) as fast:
        for client_id, client in enumerate((slow, fast)):
            client.start(176, client_id)
            client.subscribe(176, 5, "AAPL")
        for _ in range(20):
            length = thread.call(gateway.burst, "AAPL", [271.5], 100, total_bytes=1_000_000)
            fast.exactly(length)
        assert [client.client_id for client in gateway.sessions] == [1]
        assert "Dropping a client that does not read. client_id=0" in caplog.text


# Starting and stopping


def test_a_gateway_starts_again_on_the_same_port_at_once() -> None:
    gateway = Gateway(Market(symbols=["AAPL"]))
    with GatewayThread(gateway) as thread, official_client(gateway) as client:
        port = gateway.port
        thread.call(gateway.trade, "AAPL", 271.5, 100)
    until(lambda: not client.isConnected())
    for successor in (gateway, Gateway(Market(symbols=["AAPL"]), port=port)):
        with GatewayThread(successor), official_client(successor) as client:
            assert successor.port == port
            assert successor.book("AAPL").volume == 0
            assert client.isConnected()


@pytest.mark.parametrize("turns", range(6))
async def test_a_client_that_connects_while_the_gateway_stops_is_cut_off_too(turns: int) -> None:
    gateway = Gateway(Market(symbols=["AAPL"]))
    await gateway.start()
    with socket.create_connection(("127.0.0.1", gateway.port)) as client:
        for _ in range(turns):
            await asyncio.sleep(0)
        await gateway.stop()
        client.settimeout(0.0)
        await soon(lambda: _is_over(client))
    assert gateway.sessions == []


def _is_over(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def test_a_thread_passes_on_what_its_gateway_raises() -> None:
    with GatewayThread(Gateway(Market(symbols=["AAPL"]))) as thread:
        with pytest.raises(LookupError, match="'MSFT'"):
            thread.call(thread.gateway.trade, "MSFT", 1, 1)
        occupied = GatewayThread(Gateway(Market(), port=thread.gateway.port))
        with pytest.raises(OSError, match="in use"), occupied:
            pass


def test_it_listens_on_loopback_only() -> None:
    # A listener on all interfaces would accept this other loopback address too.
    with (
        GatewayThread(Gateway(Market())) as thread,
        pytest.raises(OSError, match=r"refused|assign"),
    ):
        socket.create_connection(("127.0.0.2", thread.gateway.port), DEADLINE_S)


def test_a_server_version_it_cannot_speak_is_refused() -> None:
    with pytest.raises(ValueError, match="176 to 226, not 175"):
        Gateway(Market(), server_version=175)


# The market


async def test_trades_come_at_their_times_and_delays_do_not_add_up() -> None:
    trades = [Trade(number * 0.02, "AAPL", 270 + number / 100, 1) for number in range(101)]
    async with Gateway(Market(trades), server_version=176) as gateway:
        opening = time.monotonic()
        time.sleep(1.5)  # noqa: ASYNC251 -- a machine that stalls
        await soon(lambda: gateway.book("AAPL").volume == 101)
        assert 1.9 < time.monotonic() - opening < 3.0


def test_a_market_plays_in_order_of_time_and_again_when_it_repeats() -> None:
    trades = [Trade(2, "B", 1, 1), Trade(0.5, "A", 1, 1), Trade(2, "A", 2, 0.5)]
    assert list(Market(trades).play()) == [trades[1], trades[0], trades[2]]
    playing = Market(trades, symbols=["C"], repeat=True)
    assert playing.symbols == {"A", "B", "C"}
    seconds = [trade.seconds for trade, _ in zip(playing.play(), range(7), strict=False)]
    assert seconds == [0.5, 2, 2, 3.5, 5, 5, 6.5]
    assert list(Market(symbols=["A"], repeat=True).play()) == []


def test_the_sample_market_is_the_same_every_time_and_has_stocks_of_all_kinds() -> None:
    sample = Market.sample()
    assert sample.trades == Market.sample().trades
    assert {"AAPL", "MSFT", "BRK B"} < sample.symbols
    cheap = {trade.ticker for trade in sample.trades if trade.price < 11}
    assert len(cheap) >= 3
    for ticker, per_second in (("AAPL", 2), ("PLUG", 0.3)):
        prices = [trade.price for trade in sample.trades if trade.ticker == ticker]
        assert len(prices) > per_second * sample.trades[-1].seconds
        repeated = sum(price == last for price, last in pairwise(prices)) / len(prices)
        assert 0.3 < repeated < 0.7
    assert sample.repeat


def test_a_market_is_read_from_csv(tmp_path: Path) -> None:
    path = tmp_path / "market.csv"
    path.write_text("seconds,ticker,price,size\n0,AAPL,271.5,100\n\n1.5,BRK B,503.25,0.5\n")
    market = Market.from_csv(path)
    assert market.trades == [Trade(0, "AAPL", 271.5, 100), Trade(1.5, "BRK B", 503.25, 0.5)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "line 1: the header must be seconds,ticker,price,size"),
        ("seconds,ticker,price\n", "line 1: the header must be seconds,ticker,price,size"),
        ("seconds,ticker,price,size\n0,A,1,1\n1,A,1\n", "line 3: not seconds,ticker,price,size"),
        ("seconds,ticker,price,size\n0,A,one,1\n", "line 2: not seconds,ticker,price,size"),
        ("seconds,ticker,price,size\n-1,A,1,1\n", "line 2: seconds must be 0 or more"),
        ("seconds,ticker,price,size\n\n0,A,0,1\n", "line 3: price must be a positive number"),
        ("seconds,ticker,price,size\n0,A,nan,1\n", "line 2: price must be a positive number"),
        ("seconds,ticker,price,size\n0,A,inf,1\n", "line 2: price must be a positive number"),
        ("seconds,ticker,price,size\n0,A,1,inf\n", "line 2: size must be a positive number"),
        (f"seconds,ticker,price,size\n{'0' * 200_000},A,1,1\n", "line 2: field larger than"),
        ("seconds,ticker,price,size\n0,,1,1\n", "line 2: ticker must be printable ASCII"),
    ],
)
def test_errors_in_a_csv_name_the_file_and_the_line(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "market.csv"
    path.write_text(text)
    with pytest.raises(MarketError) as caught:
        Market.from_csv(path)
    assert str(caught.value).startswith(f"{path}, {reason}")


def test_a_csv_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(MarketError, match=r"absent\.csv cannot be read: No such file"):
        Market.from_csv(tmp_path / "absent.csv")
    path = tmp_path / "binary.csv"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(MarketError, match=r"binary\.csv is not a text file in UTF-8"):
        Market.from_csv(path)


# The command


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_serves_until_it_is_told_to_stop(number: int, tmp_path: Path) -> None:
    path = tmp_path / "market.csv"
    path.write_text("seconds,ticker,price,size\n0,XYZ,5.5,100\n")
    command = [sys.executable, "-m", "simulator", "--port", "0", "--market", str(path)]
    options = ["--server-version", "176", "--account", "DU99"]
    with subprocess.Popen(
        command + options, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        port = int(first.split("port=")[1].split()[0])
        with official_client(Gateway(Market(), port=port)) as client:
            assert client.serverVersion() == 176
            assert client.named("managedAccounts") == [("DU99",)]
            client.reqMktData(5, stock("XYZ"), "", False, False, [])
            until(lambda: (5, LAST, 5.5) in client.named("tickPrice"))
        process.send_signal(number)
        try:
            assert process.wait(DEADLINE_S) == 0
        finally:
            process.kill()
        log = process.stderr.read()
    assert "Client connected. client_id=1" in log
    assert "Market data subscribed. client_id=1 req_id=5 symbol=XYZ" in log
    assert "Traceback" not in log


def test_the_command_says_what_is_wrong_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "market.csv"
    path.write_text("time,price\n")
    with GatewayThread(Gateway(Market())) as thread:
        port = str(thread.gateway.port)
        for options, reason in [
            (["--port", port], f"cannot listen on port {port}: "),
            (["--port", "70000"], "cannot listen on port 70000: "),
            (["--market", str(path)], f"{path}, line 1: the header must be "),
            (["--server-version", "300"], "server_version must be 176 to 226, not 300."),
            (["--host", "0.0.0.0"], "unrecognized arguments: --host 0.0.0.0"),
        ]:
            ended = subprocess.run(
                [sys.executable, "-m", "simulator", *options],
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=DEADLINE_S,
                check=False,
            )
            assert ended.returncode == 2
            assert ended.stdout == ""
            assert ended.stderr.startswith(f"python -m simulator: {reason}")
            assert ended.stderr.count("\n") == 1
