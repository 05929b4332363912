"""The simulated gateway, asked by real clients over real sockets."""
# ruff: noqa: N802 -- ibapi's callbacks are named by IBKR

import asyncio
import importlib
import logging
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
from pathlib import Path
from typing import Any

import pytest
from ibapi.client import EClient
from ibapi.contract import Contract
from ibapi.server_versions import MAX_CLIENT_VER
from ibapi.wrapper import EWrapper

from simulator import Gateway, GatewayThread, Handshake, Market, MarketError, Trade, session

ROOT = Path(__file__).parent.parent
DEADLINE_S = 15.0
QUIET_S = 0.3

LAST, LAST_SIZE, VOLUME, LAST_TIMESTAMP = 4, 5, 8, 45
TICK_PRICE, TICK_SIZE, ERR_MSG, NEXT_VALID_ID, MANAGED_ACCTS, TICK_STRING = 1, 2, 4, 9, 15, 46
PROTOBUF = 200

needs_protobuf = pytest.mark.skipif(MAX_CLIENT_VER < 201, reason="ibapi without protobuf")


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


@contextmanager
def official_client(gateway: Gateway, client_id: int = 1) -> Iterator[Official]:
    client = Official()
    client.connect("127.0.0.1", gateway.port, client_id)
    thread = threading.Thread(target=client.run, daemon=True)
    thread.start()
    until(lambda: client.named("nextValidId") or not client.isConnected())
    yield client
    client.disconnect()
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
            self.send((71).to_bytes(4, "big") + f"2\0{client_id}\0\0".encode())
        else:
            self.send(f"71\0002\0{client_id}\0\0".encode())
        ids = []
        last = b""
        while b"secdefnj" not in last:
            last = self.message()
            ids.append(message_id(last, server_version))
        return ids

    def subscribe(self, server_version: int, req_id: int, symbol: str) -> None:
        """Ask for a stock without a trade so far, and read what comes then."""
        if server_version >= 206:
            contract = {"symbol": symbol, "secType": "STK", "exchange": "SMART", "currency": "USD"}
            request = protobuf("MarketDataRequest")(reqId=req_id, contract=contract)
            self.send((1 + PROTOBUF).to_bytes(4, "big") + request.SerializeToString())
        else:
            self.send(
                f"1\00011\0{req_id}\0000\0{symbol}\0STK\0\0000.0\0\0\0SMART\0\0USD\0\0\0"
                "0\0\0000\0000\0\0".encode()
            )
        self.message()
        self.message()


def protobuf(name: str) -> Any:
    return getattr(importlib.import_module(f"ibapi.protobuf.{name}_pb2"), name)


def message_id(message: bytes, server_version: int) -> int:
    if server_version >= 201:
        return int.from_bytes(message[:4], "big")
    return int(message.split(b"\0")[0])


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
        while not any(request.kind == "reqMktData" for request in gateway.requests):
            await asyncio.sleep(0.01)
        gateway.trade("BRK B", 503.25, 2.5)
        async with asyncio.timeout(DEADLINE_S):
            while ticker.last != 503.25:
                await asyncio.sleep(0.01)
        assert (ticker.lastSize, ticker.bid, ticker.ask) == (2.5, 503.24, 503.26)
        assert [request.kind for request in gateway.requests[:2]] == ["startApi", "reqPositions"]
        ib.disconnect()


@versions(176, 187, 200, 201, 203, 205, 206, 207, 213, 225)
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
        assert abs(client.named("currentTime")[0][0] - time.time()) < DEADLINE_S

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
    with GatewayThread(gateway) as thread, Plain(gateway) as client:
        client.start(server_version, 1)
        thread.call(gateway.trade, "AAPL", 271.5, 100)
        client.subscribe(server_version, 5, "AAPL")
        offset = PROTOBUF if server_version >= 206 else 0
        ids = [message_id(client.message(), server_version) - offset for _ in range(8)]
        assert ids.count(TICK_PRICE) == 5
        thread.call(gateway.trade, "AAPL", 271.5, 300)
        until_quiet = []
        while not client.quiet_for_messages():
            until_quiet.append(message_id(client.message(), server_version) - offset)
        assert TICK_PRICE not in until_quiet
        assert until_quiet.count(TICK_SIZE) == 2
