"""The soak: the real newshead for 20 minutes among faults, and then the account of every trade.

`make soak`. It runs `run_system.py` against a simulated gateway and a ClickHouse server of its
own, breaks them one after the other, and kills the price monitor now and then. Each trade's price
is unique, so each stored row is traced to the trade it came from. SOAK_SECONDS makes it shorter,
SOAK_SEED repeats a run's market and faults; exit code 0 only if all was as it must be.

Times are Unix seconds, but for those of the plan: seconds since the market's opening.
"""

import asyncio
import contextlib
import functools
import itertools
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent / "support"))

from clickhouse_server import ClickHouseServer
from ibapi.message import IN

from clickhouse_manager import ClickHouseManager
from newshead.database.connection import DATABASE_ERRORS
from newshead.monitor.triggers import TriggerFolder
from newshead.settings import Settings
from simulator import Gateway, GatewayThread, Market
from simulator.encode import Encoder
from simulator.wire import frame

PROJECT: Final = Path(__file__).resolve().parent.parent
CLIENT_ID: Final = 10
SLOT_S: Final = 2
WINDOW_S: Final = 60
SERVER_VERSIONS: Final = (187, 203, 225)  # text, raw message ids, protobuf

# How long newshead may take to be back: the gateway's reaction table of the specification.
RECONNECT_S: Final = 10.0
# From a connection, or from 1101, to the subscriptions.
SUBSCRIBE_S: Final = 2.0
# After 20 s of silence the connection is given up. The next attempt may have begun just before the
# gateway spoke again: 9 s until that is given up too, and the first pause of at most 3.6 s.
AFTER_SILENCE_S: Final = 16.0
# A frame that never ends is noticed by the heartbeat's 20 s at the latest.
STUCK_S: Final = 25.0
# A new monitor's start, and the database's next attempt (3 s) before it.
RESTART_S: Final = 12.0

# Allowances for a busy machine. A trade reaches newshead within this time,
TRAVEL_S: Final = 0.5
# and where a thread here woke up later than that, no trade's time is certain.
STALL_S: Final = 0.35
# From a trigger to the subscription.
TRIGGER_S: Final = 1.0
# From a slot's end until its row is stored and judged.
CYCLE_S: Final = 3.0
STOP_S: Final = 8.0
# ClickHouse's client keeps as many as it once needed at once, which hangs decide, up to this.
MAX_DATABASE_CONNECTIONS: Final = 8


class Kind(NamedTuple):
    """A kind of fault.

    `breaks` lasts about the seconds it is given. `recovery_s`: how long after it newshead may be
    without a connection; None if no trade is lost. `lead_s`: trades so shortly before it may be
    lost with it.
    """

    name: str
    breaks: Callable[[float], None]
    recovery_s: float | None = None
    lead_s: float = TRAVEL_S
    database: bool = False
    kill: bool = False


@dataclass
class Fault:
    """Something that went wrong on purpose; `back_at`: newshead was connected again."""

    kind: Kind
    begin: float
    end: float = float("inf")
    back_at: float = float("inf")


class Published(NamedTuple):
    """A trade as it was published; `served`: newshead had a subscription for it."""

    at: float
    key: int
    size: int
    served: bool


class Row(NamedTuple):
    """A row of price_tracking."""

    ticker: str
    second: int
    price: float
    volume: int
    source: str
    recommendation: str

    @property
    def slot_end(self) -> int:
        return self.second // SLOT_S * SLOT_S + SLOT_S


@dataclass
class Stock:
    """A ticker, its part in the plan, and what became of it."""

    ticker: str
    begin_s: float
    rating: str
    rating_after_s: float
    scores: list[float | None]
    # (seconds since the opening, the price's key, size); the key is the price in millionths
    # of a USD, whose last three digits count the trades.
    script: list[tuple[float, int, int]]
    triggered_at: float = float("inf")
    rated_at: float = float("inf")
    trades: list[Published] = field(default_factory=list)
    asked_at: list[float] = field(default_factory=list)

    @property
    def priority(self) -> int:
        score = self.scores[-1] if self.scores else None
        return 3 if score is None else 1 if score >= 4 else 2


def key_of(price: float) -> int:
    return round(price * 1_000_000)


def works_in(pid: int, folder: Path) -> bool:
    """Return whether a process works in a folder: another may have the number by now."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cwd").readlink() == folder
    return False


def open_files(pid: int, database_port: int) -> tuple[int, int]:
    """Return how many files a process has open besides its connections to the database, and how
    many of these: also those that the database has ended, which no table lists any more."""
    tcp, unix = (
        [line.split() for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]]
        for name in ("tcp", "unix")
    )
    to_others = [line[9] for line in tcp if not line[2].endswith(f":{database_port:04X}")]
    known = {f"socket:[{inode}]" for inode in (*to_others, *(line[6] for line in unix))}
    files = [str(file.readlink()) for file in Path(f"/proc/{pid}/fd").iterdir()]
    to_database = sum(file.startswith("socket:") and file not in known for file in files)
    return len(files) - to_database, to_database


def scripted(seed: str, number: int, begin_s: float) -> Stock:
    """A stock with a random walk from shortly before its news until well after its window."""
    dice = random.Random(f"{seed} {number}")
    low, high = dice.choice([(0.37, 0.43), (10.3, 11.3), (0.5, 10.0), (0.5, 10.0)])
    mills = round(dice.uniform(low, high) * 1000)
    pause_s = dice.choice([0.35, 0.35, 0.35, 2.5])
    jump_s = begin_s + dice.uniform(5, 50) if dice.random() < 0.6 else float("inf")
    script: list[tuple[float, int, int]] = []
    seconds = max(0.0, begin_s - 3)
    while seconds < begin_s + 100:
        if seconds >= jump_s:
            jump_s = float("inf")
            mills = round(mills * (1 + dice.uniform(0.04, 0.12)))
        mills = max(300, round(mills * (1 + dice.gauss(0, 0.003))))
        script.append((seconds, mills * 1000 + len(script) % 1000, len(script) + 1))
        seconds += dice.uniform(0.2, 1.8) * pause_s
    scores: list[list[float | None]] = [[], [5.0, None], [None, 4.0], [6.0, 3.9], [4.5]]
    late = dice.uniform(5, 25) if dice.random() < 0.3 else 0.0
    rating = dice.choice(["BUY", "BUY", "BUY", "HOLD"])
    return Stock(f"S{number}", begin_s, rating, late, dice.choice(scores), script)


class Soak:
    """One run: the plan, everything that takes part in it, and the record of what happened."""

    def __init__(self, seed: str, seconds: float, folder: Path) -> None:
        self.seconds = seconds
        self.settle_s = min(70.0, max(12.0, seconds / 10))
        self.folder = folder
        self.dice = random.Random(seed)
        self.password = f"secret{self.dice.randrange(10**9)}"
        begins, begin_s = [], 1.0
        while begin_s < seconds:
            begins.append(begin_s)
            begin_s += self.dice.uniform(1, 12)
        self.stocks = [scripted(seed, number, begin_s) for number, begin_s in enumerate(begins)]
        self.by_ticker = {stock.ticker: stock for stock in self.stocks}
        self.gateway = Gateway(
            Market(symbols=self.by_ticker), server_version=self.dice.choice(SERVER_VERSIONS)
        )
        self.gateway_thread = GatewayThread(self.gateway)
        self.server = ClickHouseServer(folder / "database", password=self.password)
        self.faults: list[Fault] = []
        self.stalls: list[tuple[float, float]] = []
        # pid → (seconds of its life, RSS in MB, threads, open files, connections to the database)
        # once a second
        self.figures: dict[int, list[tuple[float, float, int, int, int]]] = defaultdict(list)
        self.problems: list[str] = []
        self.opening = self.stopped_at = float("inf")
        self._dark = False
        self._hold_news = False
        self._ended = threading.Event()
        # What newshead asked for, as far as it was looked at: request id → ticker.
        self._served: dict[int, str] = {}
        self._requests_seen = self._connections = 0

    # --- The run ------------------------------------------------------------

    def run(self) -> None:
        """Runs everything, to the end of run_system.py."""
        with self.server, self.gateway_thread, self._newshead() as newshead:
            self._until(lambda: "Connected to IBKR" in self.output(), 60, "newshead's start")
            self._store_scores()
            loop = self.gateway_thread.call(asyncio.get_running_loop)
            self.opening = time.time()
            tape = asyncio.run_coroutine_threadsafe(self._publish(), loop)
            threads = [
                threading.Thread(target=work, args=arguments, daemon=True)
                for work, *arguments in ((self._news,), (self._probe,), (self._watch, newshead.pid))
            ]
            for thread in threads:
                thread.start()
            self._break_things(newshead)
            self._log("All faults are over.")
            time.sleep(self.settle_s)
            self._ended.set()
            for thread in threads:
                thread.join()
            self._stop(newshead)
            tape.cancel()
            self._check_all()
            self._replay()

    def _environment(self) -> dict[str, str]:
        return dict(os.environ) | {
            "CLICKHOUSE_HOST": self.server.host,
            "CLICKHOUSE_PORT": str(self.server.port),
            "CLICKHOUSE_PASSWORD": self.password,
            "IBKR_HOST": "127.0.0.1",
            "IBKR_PORT": str(self.gateway.port),
            "IBKR_CLIENT_ID": str(CLIENT_ID),
            "SESSION_ROLL": "off",
            "RECORD_FOLDER": str(self.folder / "recordings"),
        }

    @contextlib.contextmanager
    def _newshead(self) -> Iterator[subprocess.Popen[bytes]]:
        with (self.folder / "output").open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, str(PROJECT / "run_system.py"), "--skip-list"],
                cwd=self.folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def output(self) -> str:
        """What newshead has printed so far."""
        return (self.folder / "output").read_text(errors="replace")

    def _logged(self) -> str:
        return (self.folder / "logs" / "newshead.log").read_text()

    def monitors(self) -> list[int]:
        """The process ids of all price monitors so far."""
        return [int(pid) for pid in re.findall(r"Price monitor started, pid=(\d+)", self.output())]

    def _break_things(self, newshead: subprocess.Popen[bytes]) -> None:
        """One fault after the other; after each a quiet phase, once newshead is back."""
        scale = min(1.0, max(0.3, self.seconds / 300))
        end = self.opening + self.seconds
        deck: list[Kind] = []
        planned_s = 0.0
        while True:
            quiet_s = max(2.5, self.dice.uniform(3, 14) * scale)
            time.sleep(quiet_s)
            if newshead.poll() is not None:
                raise RuntimeError(f"run_system.py ended by itself: {newshead.returncode}")
            deck = deck or self._deck()
            kind, seconds = deck.pop(), max(2.0, self.dice.uniform(3, 15) * scale)
            planned_s += quiet_s + seconds
            if time.time() + seconds > end:
                return
            # The last monitor lives for a third of the run, so that its figures mean something.
            if kind.kill and planned_s > self.seconds * 2 / 3:
                continue
            self._log(f"{kind.name} begins")
            fault = Fault(kind, time.time())
            kind.breaks(seconds)
            fault.end = time.time()
            self._log(f"{kind.name} is over after {fault.end - fault.begin:.1f} s")
            if kind.recovery_s is not None:
                self._until(self._is_back, kind.recovery_s, f"recovery from {kind.name}")
                fault.back_at = time.time()
            self.faults.append(fault)

    def _deck(self) -> list[Kind]:
        """Every kind of fault once, in any order."""
        deck = [
            Kind(name, functools.partial(self._break_database, name), database=True)
            for name in ("refuse", "hang", "slow", "error", "drop_answer")
        ] + [
            Kind("database crash", self._crash_database, database=True),
            Kind("gateway restart", self._restart_gateway, RECONNECT_S),
            Kind("silence", self._silence, 0.0),
            Kind("drop", self._drop, RECONNECT_S),
            Kind("garbage", self._garbage, RECONNECT_S),
            Kind("id clash", self._clash, RECONNECT_S),
            Kind("2103 2104", self._flap_farms),
            Kind("1100 1101", self._lose_subscriptions, 0.0),
            Kind("1100 1102", self._keep_subscriptions),
            Kind("kill", self._kill, RESTART_S, 2 * SLOT_S, kill=True),
            Kind(
                "kill without database",
                self._kill_without_database,
                RESTART_S,
                2 * SLOT_S,
                True,
                True,
            ),
        ]
        if self.seconds >= 200:
            deck.append(Kind("long silence", self._long_silence, AFTER_SILENCE_S))
            deck.append(Kind("endless frame", self._endless_frame, RECONNECT_S))
            deck.append(Kind("unreadable messages", self._unreadable))
            deck.append(Kind("glued messages", self._glue))
            deck.append(Kind("silent data", self._stop_serving, RECONNECT_S))
        self.dice.shuffle(deck)
        return deck

    def _is_back(self) -> bool:
        return self.gateway.has_client(CLIENT_ID)

    def _stop(self, newshead: subprocess.Popen[bytes]) -> None:
        self.stopped_at = time.time()
        newshead.send_signal(signal.SIGTERM)
        try:
            code = newshead.wait(STOP_S)
            self._log(f"Stopped within {time.time() - self.stopped_at:.1f} s.")
            self._claim(code == 0, f"run_system.py ended with code {code}")
        except subprocess.TimeoutExpired:
            self.problems.append(f"run_system.py did not end within {STOP_S:.0f} s of SIGTERM")
        left = [pid for pid in self.monitors() if works_in(pid, self.folder)]
        self._claim(not left, f"price monitors were left behind: {left}")

    def _log(self, text: str) -> None:
        print(f"{time.time() - self.opening:7.1f} s  {text}", flush=True)

    def _claim(self, holds: bool, problem: str) -> None:
        if not holds:
            self.problems.append(problem)

    def _until(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                self.problems.append(f"{what} took over {seconds:.0f} s")
                self._log(self.problems[-1])
                return
            time.sleep(0.05)

    # --- Market, news and figures, each in a thread of its own ---------------

    async def _publish(self) -> None:
        """Plays the stocks' scripts. Gateway's thread."""
        tape = sorted((*trade, stock.ticker) for stock in self.stocks for trade in stock.script)
        for seconds, key, size, ticker in tape:
            await asyncio.sleep(self.opening + seconds - time.time())
            if self._dark:
                continue
            self._follow_requests()
            answers = self.gateway.serving and not self.gateway.silent
            served = answers and ticker in self._served.values()
            published = Published(time.time(), key, size, served)
            self.gateway.trade(ticker, key / 1_000_000, size)
            self.by_ticker[ticker].trades.append(published)

    def _follow_requests(self) -> None:
        """Keeps account of newshead's subscriptions, but for the reference's. Gateway's thread."""
        offset = time.time() - time.monotonic()
        for request in self.gateway.requests[self._requests_seen :]:
            self._requests_seen += 1
            if request.client_id != CLIENT_ID:
                continue
            if request.kind == "startApi":
                self._connections += 1
                self._served.clear()
            elif (
                request.kind == "reqMktData"
                and request.symbol in self.by_ticker
                and self.gateway.serving
            ):
                self._served[request.req_id] = request.symbol
                self.by_ticker[request.symbol].asked_at.append(request.at + offset)
            elif request.kind == "cancelMktData":
                self._served.pop(request.req_id, None)
        if not self._is_back():
            self._served.clear()

    def _news(self) -> None:
        """Stores each stock's news, drops its trigger, and later some useless triggers."""
        dice = random.Random(self.password)
        triggers = TriggerFolder(self.folder / "triggers")
        plan = [(stock.begin_s, stock, True) for stock in self.stocks]
        again = (stock.begin_s + dice.uniform(10, 100) for stock in self.stocks)
        plan += [(s, stock, False) for s, stock in zip(again, self.stocks, strict=True)]
        for seconds, stock, first in sorted(plan, key=lambda each: each[0]):
            while time.time() < self.opening + seconds or (first and self._hold_news):
                if self._ended.wait(0.01):
                    return
            if first and time.time() < self.opening + self.seconds:
                storing = threading.Thread(target=self._store_news, args=[stock], daemon=True)
                storing.start()
                # Without the database the trigger comes first.
                storing.join(1.0)
                stock.triggered_at = time.time()
            if stock.triggered_at < float("inf"):
                triggers.write(stock.ticker)

    def _store_news(self, stock: Stock) -> None:
        """Stores a stock's news, however often it takes, and a later analysis of it."""
        for rating in ["HOLD", stock.rating] if stock.rating_after_s else [stock.rating]:
            row = [stock.ticker, f"News of {stock.ticker}", stock.ticker, "positive", rating]
            columns = ["ticker", "headline", "content_hash", "sentiment", "recommendation"]
            while not self._ended.is_set():
                with contextlib.suppress(*DATABASE_ERRORS), self._database() as database:
                    database.client.insert("News.breaking_news", [row], column_names=columns)
                    break
                time.sleep(0.3)
            if rating == stock.rating:
                stock.rated_at = time.time()
            elif self._ended.wait(stock.rating_after_s):
                return

    def _store_scores(self) -> None:
        rows = [
            [stock.ticker, 1_700_000_000 + order, score]
            for stock in self.stocks
            for order, score in enumerate(stock.scores)
        ]
        columns = ["ticker", "scraped_at", "strength_score"]
        with self._database() as database:
            database.client.insert(
                "News.float_list_detailed_dedup",
                rows,
                column_names=columns,
                column_type_names=["String", "DateTime", "Nullable(Float64)"],
            )

    @contextlib.contextmanager
    def _database(self) -> Iterator[ClickHouseManager]:
        manager = ClickHouseManager(
            Settings(
                clickhouse_host=self.server.host,
                clickhouse_port=self.server.port,
                clickhouse_password=self.password,
            )
        )
        manager.connect()
        try:
            yield manager
        finally:
            manager.close()

    def _probe(self) -> None:
        """Notes when the machine let a thread wait."""
        before = time.time()
        while not self._ended.wait(0.05):
            now = time.time()
            if now - before > 0.05 + STALL_S:
                self.stalls.append((before, now))
            before = now

    def _watch(self, pid: int) -> None:
        """Notes once a second what newshead's processes take."""
        born: dict[int, float] = {}
        while not self._ended.wait(1.0):
            for each in (pid, self.monitors()[-1]):
                age = time.monotonic() - born.setdefault(each, time.monotonic())
                with contextlib.suppress(OSError, TypeError):
                    status = Path(f"/proc/{each}/status").read_text()
                    memory, threads = (
                        int(re.search(rf"{name}:\s+(\d+)", status)[1])  # type: ignore[index]
                        for name in ("VmRSS", "Threads")
                    )
                    files = open_files(each, self.server.port)
                    self.figures[each].append((age, memory / 1024, threads, *files))

    # --- The faults ---------------------------------------------------------

    def _break_database(self, kind: str, seconds: float) -> None:
        details: dict[str, dict[str, Any]] = {
            "slow": {"seconds": self.dice.uniform(0.3, 3)},
            "error": {"code": 243, "text": "Cannot reserve 1 MiB, not enough space"},
        }
        match = self.dice.choice(["", "INSERT INTO", "SELECT"])
        self.server.fault(kind, match=match, **details.get(kind, {}))
        time.sleep(seconds)
        self.server.clear_faults()

    def _crash_database(self, seconds: float) -> None:
        self.server.kill()
        time.sleep(seconds)
        self.server.start()

    def _restart_gateway(self, seconds: float) -> None:
        loop = self.gateway_thread.call(asyncio.get_running_loop)
        asyncio.run_coroutine_threadsafe(self.gateway.stop(), loop).result()
        time.sleep(seconds)
        asyncio.run_coroutine_threadsafe(self.gateway.start(), loop).result()

    def _silence(self, seconds: float) -> None:
        self.gateway.silent = True
        time.sleep(seconds)
        self.gateway.silent = False

    def _long_silence(self, _seconds: float) -> None:
        """So long that newshead gives the connection up."""
        self._silence(self.dice.uniform(21, 26))

    def _drop(self, _seconds: float) -> None:
        self.gateway_thread.call(self.gateway.drop)

    def _tell(self, code: int, text: str) -> None:
        self.gateway_thread.call(self.gateway.send_error, code, text)

    def _flap_farms(self, seconds: float) -> None:
        """Farms break and come back one by one, among them one without US stocks."""
        for farms in (["usfarm"], ["usfarm.nj", "hfarm", "usfarm"], ["usfarm.nj"]):
            for farm in farms:
                self._tell(2103, f"Market data farm connection is broken:{farm}")
            self._dark = True
            time.sleep(seconds / 3)
            self._dark = False
            for farm in farms[:-1]:
                self._tell(2104, f"Market data farm connection is OK:{farm}")
            idle = "Market data farm connection is inactive but should be available upon demand."
            self._tell(2108, f"{idle}{farms[-1]}")
            time.sleep(0.2)

    def _stop_serving(self, _seconds: float) -> None:
        """No data and no code, until newshead makes a new connection, or TWS says that it lost
        the subscriptions: out of trading hours newshead waits for that."""

        def serve(serving: bool) -> None:
            # A request that comes meanwhile is never served.
            self._follow_requests()
            self.gateway.serving = serving

        self.gateway_thread.call(serve, False)
        time.sleep(self.dice.uniform(12, 32))
        self.gateway_thread.call(serve, True)
        self._tell(1101, "Connectivity between IBKR and TWS has been restored - data lost.")

    def _lose_subscriptions(self, seconds: float) -> None:
        def lose() -> None:
            self._follow_requests()
            self._served.clear()
            self.gateway.lose_subscriptions()

        self._tell(1100, "Connectivity between IBKR and Trader Workstation has been lost.")
        self.gateway_thread.call(lose)
        time.sleep(seconds)
        self._tell(1101, "Connectivity between IBKR and TWS has been restored - data lost.")

    def _keep_subscriptions(self, seconds: float) -> None:
        self._tell(1100, "Connectivity between IBKR and Trader Workstation has been lost.")
        self._dark = True
        time.sleep(seconds)
        self._dark = False
        self._tell(1102, "Connectivity between IBKR and TWS has been restored - data maintained.")

    def _clash(self, seconds: float) -> None:
        """Another client takes newshead's id as it loses its connection, and keeps it for 7 s at
        most: newshead's second try may come just too early, its third within 7.2 s of that."""
        with socket.create_connection(("127.0.0.1", self.gateway.port)) as other:
            other.sendall(b"API\0" + frame(b"v100..187"))
            other.recv(100)
            for session in list(self.gateway.sessions):
                if session.client_id == CLIENT_ID:
                    self.gateway_thread.call(session.drop)
            other.sendall(frame(b"71\x002\x00%d\x00\x00" % CLIENT_ID))
            time.sleep(min(seconds, 7.0))
        time.sleep(0.1)

    def _garbage(self, _seconds: float) -> None:
        """Bytes that make no sense; newshead may ignore those that make a whole message."""
        connections = self._connections
        whole = [frame(b"\0\0\x27\x0fxyz"), frame(b"9999\0x\0")]
        self._send_raw(self.dice.choice([b"\xff\xff\xff\xff", b"HTTP/1.1", *whole]))
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline and self._connections == connections:
            time.sleep(0.05)

    def _unreadable(self, _seconds: float) -> None:
        """Open orders that nobody can read: newshead skips them and loses nothing."""
        encoder = Encoder(self.gateway.server_version, {IN.OPEN_ORDER})
        for order_id in range(self.dice.randint(1, 20)):
            self._send_raw(encoder.open_order(order_id))

    def _glue(self, seconds: float) -> None:
        """Several messages in each frame."""
        self.gateway.gluing = True
        time.sleep(seconds)
        self.gateway.gluing = False

    def _endless_frame(self, _seconds: float) -> None:
        """A wrong length swallows all that follows, but newshead must notice."""
        connections = self._connections
        self._send_raw((1_000_000).to_bytes(4, "big") + b"17")
        self._until(lambda: self._connections > connections, STUCK_S, "giving up an endless frame")

    def _send_raw(self, data: bytes) -> None:
        self.gateway_thread.call(self.gateway.raw, data)

    def _kill(self, _seconds: float) -> None:
        """SIGKILL of the price monitor: what was not stored is lost, two slots at the most."""
        monitors = self.monitors()
        os.kill(monitors[-1], signal.SIGKILL)
        self._until(lambda: self.monitors() != monitors, 5, "the monitor's next start")

    def _kill_without_database(self, seconds: float) -> None:
        """The kept rows are lost as well. No news comes meanwhile: it could not be stored, and
        the next monitor would not know of triggers that the last one took."""
        self._hold_news = True
        self.server.fault(self.dice.choice(["refuse", "hang", "drop_answer"]))
        time.sleep(seconds / 2)
        self._kill(0)
        time.sleep(seconds / 2)
        self.server.clear_faults()
        self._hold_news = False

    def _replay(self) -> None:
        """The recordings, played again, give the same requests, rows and alerts, and ClickHouse has
        these."""
        files = sorted((self.folder / "recordings").iterdir())
        self._claim(len(files) == len(self.monitors()), f"there are {len(files)} recordings")
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "newshead.replay", *map(str, files), "--compare"],
            cwd=self.folder,
            env=self._environment() | {"PYTHONPATH": str(PROJECT)},
            capture_output=True,
            text=True,
            check=False,
        )
        self._log(f"Replayed in {time.monotonic() - began:.1f} s:\n{done.stdout}{done.stderr}")
        self._claim(done.returncode == 0, f"the replay ended with code {done.returncode}")

    # --- The account --------------------------------------------------------

    def _check_all(self) -> None:
        with self._database() as database:
            query = database.client.query
            found = query(
                "SELECT ticker, toUnixTimestamp(timestamp), price, volume, source, recommendation "
                "FROM News.price_tracking ORDER BY ticker, timestamp, _block_number, _part_offset"
            ).result_rows
            alerts = query(
                "SELECT ticker, toUnixTimestamp(timestamp), alert, price FROM News.news_alert"
            ).result_rows
            moves = query(
                "SELECT ticker, toUnixTimestamp(current_price_timestamp) FROM News.price_move"
            ).result_rows
        rows: dict[str, list[Row]] = defaultdict(list)
        for values in found:
            rows[values[0]].append(Row(*values))
        counts: Counter[str] = Counter()
        self._claim(rows.keys() <= self.by_ticker.keys(), "there are rows of unknown tickers")
        for stock in self.stocks:
            self._check_rows(stock, rows[stock.ticker])
            self._check_slots(stock, rows[stock.ticker], counts)
        expected = self._check_alerts(rows, list(alerts), Counter(moves))
        figures = self._check_figures()
        self._check_log()
        self._report(rows, counts, expected, len(alerts), figures)

    def _excuse(self, trade: Published) -> str:
        """What explains that newshead may not have got a trade, or not have stored it."""
        for fault in self.faults:
            if fault.kind.recovery_s is None:
                continue
            in_fault = fault.begin - fault.kind.lead_s <= trade.at <= fault.end
            # Once newshead is subscribed again nothing is excused.
            after = fault.end < trade.at <= fault.back_at + SUBSCRIBE_S and not trade.served
            if in_fault or after:
                return fault.kind.name
        return "stall" if self._stalled(trade.at, trade.at) else ""

    def _stalled(self, begin: float, end: float) -> bool:
        return any(b - TRAVEL_S <= end and begin <= e + TRAVEL_S for b, e in self.stalls)

    def _database_failed(self, begin: float, end: float) -> bool:
        return any(f.kind.database and f.begin <= end and begin <= f.end for f in self.faults)

    def _killed(self, begin: float, end: float) -> bool:
        return any(f.kind.kill and f.begin <= end and begin <= f.end for f in self.faults)

    def _check_rows(self, stock: Stock, rows: list[Row]) -> None:
        """Every row is a trade of its slot, in order, with its size and rating, in the window."""
        trades = {trade.key: trade for trade in stock.trades}
        earlier: Row | None = None
        for row in rows:
            at = f"{stock.ticker} at {row.second - self.opening:.0f} s:"
            trade = trades.get(key_of(row.price))
            if trade is None or (row.volume, row.source) != (trade.size, "ibkr_last_trade"):
                self.problems.append(f"{at} {row} is no trade ({trade})")
                continue
            # A new subscription is told the last trade, however old: as the window's first row it
            # counts, later only if it is a new one, at its own time or in the next free slot.
            told_again = any(
                row.second - TRAVEL_S <= asked < row.second + 1 for asked in stock.asked_at
            )
            told_first = told_again and earlier is None
            of_the_gap = earlier is not None and 0 <= row.second - trade.at <= SLOT_S
            on_time = row.second - TRAVEL_S <= trade.at < row.second + 1
            late = trade.at < row.second and self._stalled(trade.at, row.second)
            at_its_time = on_time or told_first or of_the_gap or late
            self._claim(at_its_time, f"{at} a trade of {trade.at:.1f}")
            if earlier is not None:
                self._claim(row.slot_end > earlier.slot_end, f"{at} a second row of one slot")
                before = trades.get(key_of(earlier.price), trade)
                self._claim(trade.at > before.at, f"{at} no newer trade than the row's before it")
            # Window and rating were asked for at the slot's end, unless the database could not say.
            asked_in_vain = self._database_failed(row.slot_end - TRAVEL_S, row.slot_end + CYCLE_S)
            # At SIGTERM the slot is not over; the row is written then and there.
            asked_at = row.slot_end if row.slot_end <= self.stopped_at else row.second
            in_window = asked_at - rows[0].second <= WINDOW_S
            self._claim(in_window or asked_in_vain, f"{at} a row after its window")
            rated = row.recommendation == stock.rating
            # Once known it stands, also without the database; but a new monitor knows none.
            known = earlier is not None and earlier.recommendation == stock.rating
            if not known or self._killed(row.second - 2 * CYCLE_S, row.slot_end + CYCLE_S):
                known = row.slot_end > stock.rated_at + TRAVEL_S and not asked_in_vain
            allowed = rated or (row.recommendation == "HOLD" and not known)
            self._claim(allowed, f"{at} rated {row.recommendation}, not {stock.rating}")
            earlier = row

    def _check_slots(self, stock: Stock, rows: list[Row], counts: Counter[str]) -> None:
        """Each slot of the window in which a trade surely came has its row, with the newest."""
        window_end = rows[0].second + WINDOW_S if rows else float("inf")
        row_of = {row.slot_end: row for row in rows}
        slots: dict[int, list[Published]] = defaultdict(list)
        for trade in stock.trades:
            # Before the subscription is there, and after SIGTERM, none is awaited.
            awaited = trade.served or trade.at >= stock.triggered_at + TRIGGER_S
            if awaited and trade.at < self.stopped_at - TRAVEL_S:
                slots[int(trade.at // SLOT_S + 1) * SLOT_S].append(trade)
        for slot_end, trades in slots.items():
            if slot_end > window_end:
                continue
            excuses = [self._excuse(trade) for trade in trades]
            # One at the slot's very end may count in the next.
            sure = [
                trade
                for trade, excuse in zip(trades, excuses, strict=True)
                if not excuse and trade.at <= slot_end - TRAVEL_S
            ]
            at = f"{stock.ticker} in the slot to {slot_end - self.opening:.1f} s:"
            row = row_of.get(slot_end)
            if sure:
                counts["expected"] += 1
                counts["found"] += row is not None
                served = "" if sure[-1].served else ", and no subscription"
                self._claim(row is not None, f"{at} {len(trades)} trades, no row{served}")
                newest = row is None or sure[-1].key % 1000 <= key_of(row.price) % 1000
                self._claim(newest, f"{at} the row is not the newest trade, {sure[-1]}")
            elif row is None and (excuse := next(filter(None, excuses), "")):
                counts[excuse] += 1

    def _check_alerts(
        self, rows: dict[str, list[Row]], alerts: list[Any], moves: Counter[Any]
    ) -> int:
        """The rule, in plain Python: every alert it gives is there once, and no other."""
        expected: dict[tuple[str, int], Row] = {}
        for ticker, own in rows.items():
            if len(own) < 3:
                continue
            baseline = min(own[1].price, own[2].price)
            for row in own[2:]:
                if (
                    (row.price - baseline) / baseline * 100 >= 5.0
                    and row.second - own[0].second <= WINDOW_S
                    and 0.40 <= row.price < 11.0
                    and row.recommendation == "BUY"
                ):
                    expected.setdefault((ticker, row.second), row)
        found = Counter((ticker, second) for ticker, second, _, _ in alerts)
        uncopied: list[str] = []
        for (ticker, second), times in (found | Counter(expected.keys())).items():
            at = f"{ticker} at {second - self.opening:.0f} s:"
            # The rows of the last slots are stored at SIGTERM, but not judged any more.
            self._claim((ticker, second) in expected, f"{at} an alert that the rule does not give")
            times = found[ticker, second]
            self._claim(times == 1, f"{at} {times} alerts")
            told = moves[ticker, second]
            # Alerts go into price_move after news_alert; a kill in between loses that.
            killed = self._killed(second, second + SLOT_S + CYCLE_S)
            if times and not told and not killed:
                uncopied.append(at)
            else:
                self._claim(told in (0, times), f"{at} {told} price moves for {times} alerts")
        # A stop counts what it leaves.
        left = sum(map(int, re.findall(r"(\d+) alerts could not be copied", self._logged())))
        self._claim(len(uncopied) <= left, f"{left} left without price moves, not {uncopied}")
        for ticker, second, priority, price in alerts:
            alert = expected.get((ticker, second))
            right = alert and (priority, price) == (self.by_ticker[ticker].priority, alert.price)
            self._claim(bool(right), f"the alert {ticker} {second} {priority} {price} is not right")
        return len(expected)

    def _check_figures(self) -> str:
        """Memory, threads and files of the processes at the end are those of their first minute."""
        lines = []
        for pid, samples in self.figures.items():
            name = "run_system" if pid not in self.monitors() else "monitor"
            if name == "monitor" and pid != self.monitors()[-1]:
                continue
            grown_up = min(60.0, samples[-1][0] / 2)
            first = [sample for sample in samples if grown_up <= sample[0] <= grown_up + 15]
            # A fault may fall into the first span; in the last a thread may be just at work.
            begin = [max(figures) for figures in zip(*first, strict=True)]
            end = [min(figures) for figures in zip(*samples[-5:], strict=True)]
            limits = (
                float("inf"),
                begin[1] * 1.1 + 15,
                begin[2] + 2,
                begin[3] + 3,
                MAX_DATABASE_CONNECTIONS,
            )
            what = (
                "RSS {1:.0f} → {6:.0f} MB, threads {2} → {7}, files {3} → {8}, "
                "connections to the database {4} → {9}"
            ).format(*begin, *end)
            lines.append(f"{name}: {what} (at {begin[0]:.0f} and {end[0]:.0f} s of its life)")
            within = all(b <= limit for b, limit in zip(end, limits, strict=True))
            self._claim(within, f"it takes more and more, {lines[-1]}")
        return "\n  ".join(lines)

    def _check_log(self) -> None:
        text = self.output() + self._logged()
        for wrong in ("Traceback", r"Cycle \d+ failed", "API thread failed", self.password):
            hit = re.search(f".*{wrong}.*", text)
            self._claim(hit is None, f"the log says {hit and hit[0]!r}")

    def _report(
        self,
        rows: dict[str, list[Row]],
        counts: Counter[str],
        expected_alerts: int,
        alerts: int,
        figures: str,
    ) -> None:
        kinds = Counter(fault.kind.name for fault in self.faults)
        excused = {kind: n for kind, n in counts.items() if kind not in ("expected", "found")}
        gaps = [
            later.second - earlier.second
            for own in rows.values()
            for earlier, later in itertools.pairwise(own)
        ]
        late = [int(s) for s in re.findall(r"The alert for \S+ is (\d+) s late", self.output())]
        published = sum(len(stock.trades) for stock in self.stocks)
        served = sum(trade.served for stock in self.stocks for trade in stock.trades)
        stored = sum(map(len, rows.values()))
        print(
            f"""
  faults: {", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items()))}
  kills of the monitor: {len(self.monitors()) - 1}; stalls of the machine: {len(self.stalls)}
  tickers: {len(self.stocks)}; trades published: {published}, to a subscription: {served}
  rows: {stored}; slots expected: {counts["expected"]}, found: {counts["found"]}
  slots without a row, excused: {excused or "none"}
  alerts expected: {expected_alerts}, found: {alerts}
  late alerts: {len(late)}, up to {max(late, default=0)} s
  longest gap between rows: {max(gaps, default=0)} s
  {figures}""",
            flush=True,
        )


def main() -> int:
    seconds = float(os.environ.get("SOAK_SECONDS") or 1200)
    seed = os.environ.get("SOAK_SEED") or str(random.randrange(10**6))
    print(f"Soak: SOAK_SEED={seed} SOAK_SECONDS={seconds:.0f}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="newshead-soak-"))
    soak = Soak(seed, seconds, folder)
    soak.run()
    if not soak.problems:
        shutil.rmtree(folder)
        print("  all as it must be")
        return 0
    print(f"  FAILED: {len(soak.problems)} problems; everything is kept in {folder}")
    for problem in soak.problems[:40]:
        print(f"  - {problem}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
