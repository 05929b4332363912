"""A recording played again: the price monitor and its clients, fed with what was recorded.

They are the live ones. In place of the clock, TWS and the database they have a tape that gives
what was recorded, in its order, and sees to it that they do what they did then.
"""

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import datetime, time
from pathlib import Path
from typing import Any, Final, NamedTuple, Self, TypeVar

from clickhouse_connect.driver import exceptions

from clickhouse_manager import ClickHouseManager
from ibkr_client import GatewayError, IBKRClient
from newshead.database import connection, queries
from newshead.recording import EPOCH, Entry, encoded, entries
from newshead.replay.played import Played
from newshead.settings import Settings
from newshead.tape import STORED, Kind, Tape
from newshead.tws.wire import TwsSocket, whole_messages
from price_checker import ContinuousPriceMonitor

T = TypeVar("T")

# What is not the monitor's own doing: the tape brings it about.
EXTERNAL: Final = frozenset(
    {
        *(Kind.BEGIN, Kind.END, Kind.LATE),
        *(Kind.CONNECT, Kind.OPENED, Kind.CHUNK, Kind.WATCH),
        *(Kind.DECIDE, Kind.DISCONNECT, Kind.CLOSED),
    }
)
# What changes tables, whose rows no decision is made of: it succeeds or fails as it did then.
UNASKED: Final = frozenset({"create_tables", "require_movable", "move_session"})
# So often the loop has its turn before an entry that the monitor has to make is given up.
TURNS: Final = 100
# Excerpts in messages are no longer.
SHOWN: Final = 200


class DifferenceError(Exception):
    """The replay does something else than what was recorded."""


class OverError(Exception):
    """The recording is over."""


def play(path: Path) -> Played:
    """Play a recording to its end, to where it is cut or to the first difference.

    Raises
    ------
    RecordingError
        It is none that can be read.
    """
    with _without_log(), closing(entries(path)) as found:
        return asyncio.run(_play(path, found))


async def _play(path: Path, found: Iterator[Entry]) -> Played:
    first = next(found, None)
    told = first.details[0] if first is not None and first.kind is Kind.BEGIN else {}
    settings = Settings.from_environment({k: v for k, v in told.items() if isinstance(v, str)})
    tape = ReplayTape(found)
    if first is None:
        return _played(path, tape, first, settings.session_roll)
    database = _Database(settings, tape)
    tape.monitor = ContinuousPriceMonitor(
        settings, wait=told.get("wait", False), ch_manager=database, tape=tape
    )
    # What was given up is told by the recording.
    tape.monitor.outbox.max_rows = sys.maxsize
    tasks: list[asyncio.Task[None]] = []
    try:
        with suppress(DifferenceError, OverError):
            await _drive(tape, tape.monitor, tasks)
    finally:
        # What has just begun comes to its first wait: a coroutine must not end before its begin.
        for _ in range(TURNS):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return _played(path, tape, first, settings.session_roll)


def _played(
    path: Path, tape: "ReplayTape", first: Entry | None, session_roll: time | None
) -> Played:
    last = tape.last or first
    return Played(
        path,
        0 if first is None else tape.number - 1,
        tape.requests,
        tape.messages,
        tape.rows,
        tape.stored,
        tape.scores,
        session_roll,
        first.at if first is not None else EPOCH,
        last.at if last is not None else EPOCH,
        last is not None and last.kind is Kind.END,
        tape.difference,
    )


async def _drive(
    tape: "ReplayTape", monitor: ContinuousPriceMonitor, tasks: list[asyncio.Task[None]]
) -> None:
    """Bring about what begins by itself, and let the monitor come to all else."""
    tasks.append(asyncio.create_task(monitor.take_up()))
    while (entry := tape.head) is not None and not tape.difference:
        if tape.is_external():
            tape.bring_about()
            continue
        number = tape.number
        if entry.kind is Kind.ANSWER:
            tape.answer()
            # Whoever takes it has its turn before anything else.
            await asyncio.sleep(0)
        else:
            _begin(entry, monitor, tasks)
        turns = 0
        while tape.number == number and not tape.difference:
            if entry.kind is Kind.CYCLE:
                tape.begin_cycle()
            await asyncio.sleep(0)
            turns += 1
            if turns > TURNS:
                tape.differ(entry, "the replay does not come to it")


def _begin(entry: Entry, monitor: ContinuousPriceMonitor, tasks: list[asyncio.Task[None]]) -> None:
    """Begin what an entry tells the beginning of, if it does."""
    match entry.kind:
        case Kind.TRIGGER:
            monitor.answer_trigger(*entry.details)
        case Kind.CYCLE if entry.details == [0]:
            tasks.append(asyncio.create_task(monitor.continuous_polling_loop()))
        case Kind.START:
            tasks.append(asyncio.create_task(monitor.connect_first()))
        case Kind.RECONNECT:
            tasks.append(asyncio.create_task(monitor.reconnect_ibkr()))
        case Kind.STOP:
            for task in tasks:
                task.cancel()
            tasks.append(asyncio.create_task(monitor.finish()))


class ReplayTape(Tape):
    """The tape of a replay."""

    def __init__(self, found: Iterator[Entry]) -> None:
        self._entries = found
        self._depth = 0
        self._at, self._monotonic = EPOCH, 0.0
        self._clients: list[IBKRClient] = []
        self._asked = 0
        self._questions: dict[int, _Question] = {}
        self._due: asyncio.Future[None] | None = None
        self.monitor: ContinuousPriceMonitor | None = None
        # The entry that is next, the one before it, and its number in the file. The first
        # entry is not the tape's.
        self.last: Entry | None = None
        self.head = next(found, None)
        self.number = 2
        self.difference = ""
        self.requests = self.messages = 0
        self.rows: dict[str, list[Sequence[Any]]] = {}
        self.stored: dict[str, list[Sequence[Any]]] = {}
        self.scores: dict[str, float | None] = {}

    # --- What the monitor and its clients ask for ---------------------------

    def utc(self) -> datetime:
        if not self._depth:
            self.note(Kind.NOW)
        return self._at

    def monotonic(self) -> float:
        if not self._depth:
            self.note(Kind.NOW)
        return self._monotonic

    def step(self, kind: Kind, *details: Any, client: int = 0) -> Self:
        self.note(kind, *details, client=client)
        self._depth += 1
        return self

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        # Of the rows that this step told of, before the monitor looks at what waits.
        if self.head is not None and self.head.kind is Kind.GIVEN_UP and self.monitor is not None:
            given_up = self.head.details
            self._advance()
            self.monitor.outbox.give_up(*given_up)

    def note(self, kind: Kind, *details: Any, client: int = 0) -> None:
        while not self._depth and kind not in EXTERNAL and self.is_external():
            self.bring_about()
        entry = self.head
        if entry is None or self.difference:
            raise OverError
        if kind is not entry.kind or client != entry.client:
            self.differ(entry, f"the replay has {kind.name} there")
        if kind is not Kind.CHUNK and (body := encoded(details)) != entry.body:
            self.differ(entry, f"the replay has {_shown(body)} there")
        if not self._depth:
            self._at, self._monotonic = entry.at, entry.monotonic
        if kind is Kind.REQUEST:
            self.requests += 1
        elif kind is Kind.ROWS:
            table, rows = details
            self.rows.setdefault(table, []).extend(rows)
        self._advance()

    def new_client(self, client: object) -> int:
        assert isinstance(client, IBKRClient)  # noqa: S101
        self._clients.append(client)
        return len(self._clients)

    async def ask(self, function: Callable[..., T], *args: Any) -> T:
        answer = await self._answered(function, args)
        return self._put(function, args, answer)

    async def store(self, function: Callable[..., T], *args: Any) -> T:
        return await self.ask(function, *args)

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        answer = await self._answered(function, args)
        if answer.failure is not None:
            raise _failure(answer.failure)
        value: T = answer.value
        return value

    async def aside(self, function: Callable[..., object], *args: Any) -> None:
        pass

    async def until(self, due: Callable[[], Awaitable[None]]) -> None:  # noqa: ARG002
        self._due = asyncio.get_running_loop().create_future()
        await self._due

    # --- What was recorded --------------------------------------------------

    def differ(self, entry: Entry, what: str) -> None:
        """Note the first difference.

        Raises
        ------
        DifferenceError
            Always: what follows means nothing.
        """
        self.difference = self.difference or (
            f"entry {self.number} ({entry.kind.name} at {entry.at.isoformat()}"
            f"{'' if entry.kind is Kind.CHUNK else ': ' + _shown(entry.body)}): {what}."
        )
        raise DifferenceError(self.difference)

    def is_external(self) -> bool:
        """Tell whether the next entry is not the monitor's own doing: one of EXTERNAL, or an answer
        that nobody waits for any more."""
        entry = self.head
        if entry is None:
            return False
        return entry.kind in EXTERNAL or (entry.kind is Kind.ANSWER and not entry.details[-1])

    def begin_cycle(self) -> None:
        """Let the monitor begin the cycle that it waits for."""
        if self._due is not None and not self._due.done():
            self._due.set_result(None)

    def answer(self) -> None:
        """Give the answer that is next to whoever asked for it."""
        assert self.head is not None  # noqa: S101
        number, answers, failure, value, waited = self.head.details
        question = self._questions.pop(number, None)
        if question is None:
            self.differ(self.head, "the replay has not asked for it")
            return
        self._advance()
        answer = _Answer(answers, failure, value)
        if not waited:
            # What it did is done; whoever had asked is gone.
            if not isinstance(getattr(question.function, "__self__", None), IBKRClient):
                with suppress(*connection.DATABASE_ERRORS):
                    self._put(question.function, question.args, answer)
        elif not question.waiting.done():
            question.waiting.set_result(answer)

    def bring_about(self) -> None:
        """Do what the next entry tells of, which is external."""
        entry = self.head
        assert entry is not None  # noqa: S101
        if entry.kind is Kind.ANSWER:
            self.answer()
            return
        if entry.kind in (Kind.BEGIN, Kind.END, Kind.LATE):
            self._advance()
            return
        if not 0 < entry.client <= len(self._clients):
            self.differ(entry, "the replay has no such client")
        client = self._clients[entry.client - 1]
        # What ends a connection is told by the entry that tells of its end.
        with suppress(GatewayError):
            self._act(client, entry)

    def _act(self, client: IBKRClient, entry: Entry) -> None:
        match entry.kind:
            case Kind.CHUNK:
                messages, _ = whole_messages(entry.body)
                self.messages += len(messages)
                client.take(messages, entry.body)
            case Kind.WATCH:
                client.watch(idle=entry.details[0])
            case Kind.CONNECT:
                client.begin()
            case Kind.OPENED:
                client.clientId = client.client_id
                with suppress(GatewayError):
                    client.opened(_Nobody())
                client.greeted(entry.details[0], "")
            case Kind.DECIDE:
                client.decide()
            case Kind.DISCONNECT:
                client.leave()
            case Kind.CLOSED:
                text, accepted, final = entry.details
                client.end(GatewayError(text, accepted=accepted, final=final))

    async def _answered(self, function: Callable[..., Any], args: tuple[Any, ...]) -> "_Answer":
        self._asked += 1
        self.note(Kind.ASK, self._asked, getattr(function, "__name__", ""))
        waiting: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        self._questions[self._asked] = _Question(function, args, waiting)
        return await waiting

    def _put(self, function: Callable[..., T], args: tuple[Any, ...], answer: "_Answer") -> T:
        """Put a question to what the database answered then."""
        assert self.monitor is not None  # noqa: S101
        database = self.monitor.ch_manager
        assert isinstance(database, _Database)  # noqa: S101
        database.answers = iter(answer.answers)
        database.failure = None if answer.failure is None else _failure(answer.failure)
        unasked = function.__name__ in UNASKED
        value: Any = None if unasked else function(*args)
        if database.failure is not None:
            raise database.failure
        found: T = value
        return found

    def _advance(self) -> None:
        self.last, self.head = self.head, next(self._entries, None)
        self.number += 1


class _Answer(NamedTuple):
    answers: list[Any]
    failure: list[Any] | None
    value: Any


class _Question(NamedTuple):
    function: Callable[..., Any]
    args: tuple[Any, ...]
    waiting: asyncio.Future[_Answer]


class _Database(ClickHouseManager):
    """The database as it answered then; nothing is stored anywhere."""

    def __init__(self, settings: Settings, tape: ReplayTape) -> None:
        super().__init__(settings)
        self._tape = tape
        self.answers: Iterator[Any] = iter(())
        self.failure: Exception | None = None

    @property
    def client(self) -> Any:
        return self

    def rows(self, statement: str, **parameters: Any) -> Sequence[Sequence[Any]]:  # noqa: ARG002
        found: Sequence[Sequence[Any]] = self._next()
        if statement == queries.RULE_ROWS:
            self._tape.scores |= {ticker: score for ticker, _, _, score in found}
        return found

    def insert(self, table: str, rows: Sequence[Sequence[Any]], **_: Any) -> None:
        """Store rows as they were stored then."""
        if self._next() != STORED:
            raise DifferenceError("The replay stores rows where newshead read some.")
        self._tape.stored.setdefault(table.removeprefix("News."), []).extend(rows)

    def _next(self) -> Any:
        for answer in self.answers:
            return answer
        raise self.failure or DifferenceError("The replay asks the database for more.")


class _Nobody(TwsSocket):
    """In place of a socket: nothing is sent."""

    def __init__(self) -> None:
        pass

    def isConnected(self) -> bool:
        return True

    def sendMsg(self, message: bytes) -> None:
        pass

    @contextmanager
    def first(self) -> Iterator[None]:
        yield

    def disconnect(self, within_s: float = 0.0) -> None:
        pass

    def slow_down(self) -> None:
        pass


def _failure(told: Sequence[Any]) -> Exception:
    """Return the exception that a call raised then."""
    name, code, text = told
    kind = getattr(connection, name, None) or getattr(exceptions, name, None) or RuntimeError
    problem: Exception = kind(text)
    if code is not None:
        problem.code = code  # type: ignore[attr-defined]
    return problem


def _shown(body: bytes) -> str:
    text = body.decode()
    return text if len(text) <= SHOWN else f"{text[:SHOWN]} …"


@contextmanager
def _without_log() -> Iterator[None]:
    """Let nobody be told of what was logged then."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
