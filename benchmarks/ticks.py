"""Ticks a second from the socket to the buffer: IBKRClient beside IBKR's own client and ib_async.

A tick is one tick message, as for the others' published figures. A process of its own writes the
same bytes to each client over a loopback socket: of every two trades the messages that TWS sends
for them (see `block`). Each client puts the trades into a buffer, which is drained every 2 s as
the price monitor drains it. Two blocks, 30 KB, are under way at most: the time that IBKR's client
takes grows with the square of what waits in its socket, and a flood would measure that alone.

ib_async speaks the text form only. Run as `python -m benchmarks.ticks`.
"""

import asyncio
import multiprocessing
import socket
import statistics
import sys
import threading
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, Final

import ib_async
from ibapi.client import EClient
from ibapi.contract import Contract
from ibapi.ticktype import TickTypeEnum
from ibapi.wrapper import EWrapper

from benchmarks.figures import Figure, Target, table
from ibkr_client import IBKRClient
from simulator.encode import Encoder

HOST: Final = "127.0.0.1"
TEXT: Final = 176
PROTOBUF: Final = 225
# As many as TWS has lines for by default.
TICKERS: Final = [f"T{number}" for number in range(100)]
# The first request id that IBKRClient uses; the others are made to use the same.
FIRST_ID: Final = 1000
BLOCKS_UNDER_WAY: Final = 2
DRAIN_EVERY_S: Final = 2.0
CONNECT_TIMEOUT_S: Final = 10.0


def block(server_version: int) -> tuple[bytes, int]:
    """One trade of each ticker as TWS sends it; the bytes, and of how many messages.

    A trade: its price with its size, the size again, the day's volume. Every second one besides:
    its time, and the new bid and ask.
    """
    encoder = Encoder(server_version)
    messages = []
    for number, req_id in enumerate(range(FIRST_ID, FIRST_ID + len(TICKERS))):
        price, size = 5 + number / 100, str(100 + number)
        messages += [
            encoder.tick_price(req_id, TickTypeEnum.LAST, price, size),
            encoder.tick_size(req_id, TickTypeEnum.LAST_SIZE, size),
            encoder.tick_size(req_id, TickTypeEnum.VOLUME, str(1_000_000 + number)),
        ]
        if number % 2:
            messages += [
                encoder.tick_string(req_id, TickTypeEnum.LAST_TIMESTAMP, "1795555555"),
                encoder.tick_price(req_id, TickTypeEnum.BID, price - 0.01, "200"),
                encoder.tick_price(req_id, TickTypeEnum.ASK, price + 0.01, "300"),
            ]
    return b"".join(messages), len(messages)


def feed(orders: Connection) -> None:
    """The process that plays TWS, one client after the other, as ordered.

    An order is the server version, the bytes of a block and how many of them to send. It is
    answered with the port; then each message taken from `orders` allows one more block.
    """
    while True:
        try:
            server_version, data, blocks = orders.recv()
        except EOFError:
            return
        encoder = Encoder(server_version)
        with socket.create_server((HOST, 0)) as listener:
            orders.send(listener.getsockname()[1])
            client, _ = listener.accept()
        with client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.recv(4096)
            client.sendall(encoder.version())
            client.recv(4096)
            client.sendall(encoder.managed_accounts("DU1") + encoder.next_valid_id(FIRST_ID))
            for _ in range(blocks):
                orders.recv_bytes()
                client.sendall(data)
            # Until the client ends it, so that nothing under way is lost.
            while client.recv(4096):
                pass


@contextmanager
def feeder() -> Iterator[Connection]:
    """The feeding process, to be ordered from; it ends with the block."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=feed, args=[there])
    process.start()
    there.close()
    try:
        yield here
    finally:
        here.close()
        process.join()


class Course:
    """One client's run: counts its trades, allows the next blocks, and takes the time."""

    def __init__(self, orders: Connection, server_version: int, blocks: int) -> None:
        data, self.messages_a_block = block(server_version)
        self._orders = orders
        self._trades = 0
        self._blocks = blocks
        orders.send((server_version, data, blocks))
        self.port: int = orders.recv()
        self.done = threading.Event()
        self._began = self._ended = 0.0

    def begin(self) -> None:
        """The client is subscribed."""
        self._began = time.perf_counter()
        for _ in range(min(BLOCKS_UNDER_WAY, self._blocks)):
            self._orders.send_bytes(b"")

    def trade(self, *_: object) -> None:
        """A trade stands in the client's buffer."""
        self._trades += 1
        taken, rest = divmod(self._trades, len(TICKERS))
        if rest:
            return
        if taken + BLOCKS_UNDER_WAY <= self._blocks:
            self._orders.send_bytes(b"")
        if taken == self._blocks:
            self._ended = time.perf_counter()
            self.done.set()

    def drain(self, take: Callable[[], object]) -> None:
        """Empties the client's buffer as the price monitor does until all has come."""
        while not self.done.wait(DRAIN_EVERY_S):
            take()

    @property
    def ticks_per_s(self) -> float:
        """Tick messages a second."""
        return self._blocks * self.messages_a_block / (self._ended - self._began)


class PlainClient(EWrapper, EClient):  # type: ignore[misc]
    """IBKR's client in the plain way, with the least that puts trades into a buffer."""

    def __init__(self, course: Course) -> None:
        EClient.__init__(self, self)
        self.course = course
        self.lock = threading.Lock()
        self.prices: dict[int, float] = {}
        self.buffer: list[tuple[int, float, int, float]] = []
        self.ready = threading.Event()

    def nextValidId(self, orderId: int) -> None:  # noqa: ARG002
        self.ready.set()

    def tickPrice(self, reqId: int, tickType: int, price: float, attrib: Any) -> None:  # noqa: ARG002
        if tickType == TickTypeEnum.LAST:
            self.prices[reqId] = price

    def tickSize(self, reqId: int, tickType: int, size: Any) -> None:
        if tickType == TickTypeEnum.LAST_SIZE and reqId in self.prices:
            with self.lock:
                self.buffer.append((reqId, self.prices.pop(reqId), int(size), time.time()))
            self.course.trade()

    def take(self) -> object:
        with self.lock:
            taken, self.buffer = self.buffer, []
        return taken


def run_official(course: Course) -> None:
    """IBKR's own client: its connect, its reader thread, its run."""
    client = PlainClient(course)
    client.connect(HOST, course.port, 1)
    thread = threading.Thread(target=client.run)
    thread.start()
    client.ready.wait(CONNECT_TIMEOUT_S)
    for req_id, symbol in enumerate(TICKERS, FIRST_ID):
        contract = Contract()
        contract.symbol, contract.secType = symbol, "STK"
        contract.exchange, contract.currency = "SMART", "USD"
        client.reqMktData(req_id, contract, "", False, False, [])
    course.begin()
    course.drain(client.take)
    client.disconnect()
    thread.join()


def run_ib_async(course: Course) -> None:
    """ib_async: its client, decoder and tickers, on an event loop of its own."""

    async def run() -> None:
        ib = ib_async.IB()
        buffer: list[tuple[str, float, float, Any]] = []

        def take_trades(tickers: set[ib_async.Ticker]) -> None:
            for ticker in tickers:
                for tick in ticker.ticks:
                    if tick.tickType == TickTypeEnum.LAST:
                        buffer.append((ticker.contract.symbol, tick.price, tick.size, tick.time))
                        course.trade()

        ib.pendingTickersEvent += take_trades
        # Not `ib.connectAsync`, which asks for the account's orders and positions too.
        await ib.client.connectAsync(HOST, course.port, 1, CONNECT_TIMEOUT_S)
        for number, symbol in enumerate(TICKERS, 1):
            ib.reqMktData(ib_async.Stock(symbol, "SMART", "USD", conId=number))
        course.begin()
        while not course.done.is_set():
            await asyncio.sleep(0.05)
            buffer.clear()
        ib.disconnect()

    asyncio.run(run())


def run_newshead(course: Course) -> None:
    """IBKRClient as the price monitor uses it."""
    client = IBKRClient(HOST, course.port, 1, price_callback=course.trade)
    assert client.connect_and_run(), client.failure
    client.update_subscriptions(set(TICKERS))
    course.begin()
    course.drain(client.get_and_clear_buffer)
    client.disconnect()
    client.api_thread.join()


RUNS = {
    "official text": (run_official, TEXT, 0.15),
    "ib_async": (run_ib_async, TEXT, 0.5),
    "newshead text": (run_newshead, TEXT, 1.0),
    "official protobuf": (run_official, PROTOBUF, 0.15),
    "newshead protobuf": (run_newshead, PROTOBUF, 1.0),
}


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    figs = {k: [] for k in RUNS}
    with feeder() as orders:
        for _ in range(rounds):
            for k, (run, v, share) in RUNS.items():
                c = Course(orders, v, int(share * 1000))
                run(c)
                figs[k].append(c.ticks_per_s)
    for k, v in figs.items():
        print(k, [int(x) for x in v], int(statistics.median(v)))


if __name__ == "__main__":
    main()
