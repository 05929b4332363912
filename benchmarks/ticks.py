"""Ticks a second from the socket to the buffer: IBKRClient beside IBKR's client and ib_async.

A tick is a tick message of TWS's, of whatever kind. A process of its own writes
the same bytes to each client over a loopback socket, and each puts the trades
among them into a buffer that is drained every 2 s, as the price monitor drains
it. No more than 30 KB are under way at once: the time that IBKR's client takes
grows with the square of what waits for it, and nothing else would be measured.

ib_async speaks the text form only.
"""

import asyncio
import logging
import multiprocessing
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from multiprocessing.connection import Connection
from typing import Final, NamedTuple

import ib_async
from ibapi.client import EClient
from ibapi.contract import Contract
from ibapi.ticktype import TickTypeEnum
from ibapi.wrapper import EWrapper

from benchmarks.figures import Figure, Target
from ibkr_client import IBKRClient
from newshead.tape import Kind, Tape
from simulator.encode import Encoder

HOST: Final = "127.0.0.1"
TEXT: Final = 176
PROTOBUF: Final = 225
# As many as TWS has lines for by default.
TICKERS: Final = [f"T{number}" for number in range(100)]
# The first request id that IBKRClient uses; the others are made to use the same.
FIRST_ID: Final = 1000
BLOCKS_UNDER_WAY: Final = 2
ROUNDS: Final = 9
DRAIN_EVERY_S: Final = 2.0
CONNECT_TIMEOUT_S: Final = 10.0


class Block(NamedTuple):
    """Bytes that are sent again and again, with the messages and the trades in them."""

    data: bytes
    messages: int
    trades: int


def block(server_version: int) -> Block:
    """A trade of each ticker as TWS sends it: its price with its size, the size again and the
    day's volume; for every second one its time, and the new bid and ask."""
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
    return Block(b"".join(messages), len(messages), len(TICKERS))


def measure(quick: bool) -> list[Figure]:
    """The medians of several rounds, the clients in turns."""
    # Each connection that is over would be a warning.
    logging.getLogger("ibkr_client").setLevel(logging.ERROR)
    blocks = {run_official: 100, run_ib_async: 200, run_newshead: 500}
    courses = [
        (run_newshead, TEXT),
        (run_official, TEXT),
        (run_ib_async, TEXT),
        (run_newshead, PROTOBUF),
        (run_official, PROTOBUF),
    ]
    measured: dict[object, list[float]] = {course: [] for course in courses}
    with feeder() as orders:
        for _ in range(1 if quick else ROUNDS):
            for run, version in courses:
                count = 5 if quick else blocks[run]
                course = Course(orders, version, block(version), count)
                run(course)
                measured[run, version].append(course.ticks_per_s)
    text, official_text, ib, protobuf, official_protobuf = map(statistics.median, measured.values())
    five_times = Target(5, at_least=True, of_ratio=True)
    ahead = Target(1, at_least=True, of_ratio=True)
    return [
        Figure("ticks, text", text, "/s", "IBKR's client", official_text, five_times),
        Figure("ticks, text", text, "/s", "ib_async", ib, ahead),
        Figure("ticks, protobuf", protobuf, "/s", "IBKR's client", official_protobuf, five_times),
    ]


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

    def __init__(self, orders: Connection, server_version: int, each: Block, blocks: int) -> None:
        self._orders = orders
        self._block = each
        self._blocks = blocks
        self.trades = 0
        orders.send((server_version, each.data, blocks))
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
        self.trades += 1
        taken, rest = divmod(self.trades, self._block.trades)
        if rest:
            return
        if taken + BLOCKS_UNDER_WAY <= self._blocks:
            self._orders.send_bytes(b"")
        if taken == self._blocks:
            self._ended = time.perf_counter()
            self.done.set()

    def drain(self, take: Callable[[], object]) -> None:
        """Empties the client's buffer as the price monitor does, until all has come."""
        while not self.done.wait(DRAIN_EVERY_S):
            take()
        take()

    @property
    def ticks_per_s(self) -> float:
        """Tick messages a second."""
        return self._blocks * self._block.messages / (self._ended - self._began)


class PlainClient(EWrapper, EClient):  # type: ignore[misc]
    """IBKR's client in the plain way, with the least that puts trades into a buffer."""

    def __init__(self, course: Course) -> None:
        EClient.__init__(self, self)
        self.course = course
        self.lock = threading.Lock()
        self.prices: dict[int, float] = {}
        self.buffer: list[tuple[int, float, int, float]] = []
        self.ready = threading.Event()

    def nextValidId(self, _order_id: int) -> None:
        self.ready.set()

    def tickPrice(self, req_id: int, tick_type: int, price: float, _attributes: object) -> None:
        if tick_type == TickTypeEnum.LAST:
            self.prices[req_id] = price

    def tickSize(self, req_id: int, tick_type: int, size: Decimal) -> None:
        if tick_type == TickTypeEnum.LAST_SIZE and req_id in self.prices:
            with self.lock:
                self.buffer.append((req_id, self.prices.pop(req_id), int(size), time.time()))
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
    # Not `client.disconnect`, which forgets the version by which the thread still reads.
    client.setConnState(EClient.DISCONNECTED)
    thread.join()


def run_ib_async(course: Course) -> None:
    """ib_async: its client, decoder and tickers, on an event loop of its own."""

    async def run() -> None:
        ib = ib_async.IB()
        buffer: list[tuple[ib_async.Ticker, float, float, datetime]] = []

        def take_trades(tickers: set[ib_async.Ticker]) -> None:
            for ticker in tickers:
                for tick in ticker.ticks:
                    if tick.tickType == TickTypeEnum.LAST:
                        buffer.append((ticker, tick.price, tick.size, tick.time))
                        course.trade()

        ib.pendingTickersEvent += take_trades
        # Not `ib.connectAsync`, which asks for the account's orders and positions too.
        await ib.client.connectAsync(HOST, course.port, 1, CONNECT_TIMEOUT_S)  # type: ignore[no-untyped-call]
        for number, symbol in enumerate(TICKERS, 1):
            ib.reqMktData(ib_async.Stock(symbol, "SMART", "USD", conId=number))
        course.begin()
        await asyncio.to_thread(course.drain, buffer.clear)
        ib.disconnect()

    asyncio.run(run())


def run_newshead(course: Course, tape: Tape | None = None) -> None:
    """IBKRClient; counted by its price callback, which the price monitor does not even use."""
    tape = Tape() if tape is None else tape
    client = IBKRClient(HOST, course.port, 1, price_callback=course.trade, tape=tape)
    if not client.connect_and_run():
        raise RuntimeError(str(client.failure))
    with tape.step(Kind.SUBSCRIBE):
        client.update_subscriptions(set(TICKERS))

    def take() -> None:
        with tape.step(Kind.DRAIN):
            client.get_and_clear_buffer()

    course.begin()
    course.drain(take)
    client.disconnect()
