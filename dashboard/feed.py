"""One reading of the database for all who watch, and to each what is new for them."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Mapping
from datetime import UTC, datetime
from typing import Final, NamedTuple

from dashboard import queries
from dashboard.cards import Card
from dashboard.queries import Mark
from dashboard.wire import RULE, card_json, compact, parts_json, status_json
from newshead.core.parts import Told
from newshead.database.connection import DATABASE_ERRORS, Database, one_line
from newshead.database.shared import SharedConnection
from newshead.database.tables import StatusRow
from newshead.loop import off_loop
from newshead.outage import Outage
from newshead.settings import ConfigurationError

logger = logging.getLogger(__name__)

# A reading that takes longer is told to the page while it goes on.
ANSWER_S: Final = 3.0


class Round(NamedTuple):
    """One reading: the database's clock `now`, which came at `read_at` (monotonic seconds), the
    status, what the parts told, the session's name, a mark per ticker, the cards that changed."""

    now: datetime
    read_at: float
    status: StatusRow | None
    parts: list[Told]
    session: str
    marks: dict[str, Mark]
    cards: list[Card]


def read_round(database: Database, known: Mapping[str, Mark]) -> Round:
    """Read what changed since the marks were `known`. Blocks."""
    now, told = queries.parts(database)
    read_at = time.monotonic()
    session, marks = queries.marks(database)
    changed = {ticker: mark for ticker, mark in marks.items() if known.get(ticker) != mark}
    return Round(
        now,
        read_at,
        queries.status(database),
        told,
        session,
        marks,
        queries.cards_of(database, changed),
    )


class _Shown(NamedTuple):
    """A card as the page has it, since which version of the whole."""

    card: Card
    reason: str
    condition: str
    version: int
    json: str


class Feed:
    """What the page shows, read once a cycle while anyone watches.

    Each change has a version, and each viewer is told what is newer than the
    last version they were told. So a viewer who is slow gets fewer and fuller
    updates and costs no memory. All methods run on one event loop.
    """

    def __init__(self, connection: SharedConnection) -> None:
        self._connection = connection
        self._viewers = 0
        self._polling: asyncio.Task[None] | None = None
        self._updated = asyncio.Event()
        self._closed = False
        self._forget()

    def _forget(self) -> None:
        self._version = 0
        self._now, self._read_at = datetime.now(UTC), time.monotonic()
        self._outage = Outage()
        self._status: StatusRow | None = None
        self._parts: list[Told] = []
        self._session = ""
        self._marks: dict[str, Mark] = {}
        self._shown: dict[str, _Shown] = {}
        self._gone: dict[str, int] = {}

    async def follow(self) -> AsyncGenerator[str]:
        """Yield a viewer's updates, in JSON: at first all there is, then what changed.

        `cards` are those that are new or changed, `gone` the tickers that are
        no longer shown; `full` says that nothing told before holds.
        """
        self._viewers += 1
        if self._polling is None:
            self._polling = asyncio.create_task(self._poll())
        told = 0
        try:
            if not self._version:
                await self._updated.wait()
            while not self._closed:
                update = self._update(told)
                told = self._version
                yield update
                await self._updated.wait()
        finally:
            self._viewers -= 1
            if not self._viewers and self._polling is not None:
                self._polling.cancel()
                self._polling = None
                self._forget()

    def close(self) -> None:
        """End all viewers' updates."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        self._updated.set()
        self._updated = asyncio.Event()

    async def _poll(self) -> None:
        while True:
            await self._read()
            self._wake()
            await asyncio.sleep(queries.until_next_reading_s())

    async def _read(self) -> None:
        reading = asyncio.create_task(off_loop(self._connection.run, read_round, dict(self._marks)))
        try:
            # A database that stands still is to be told, not waited for.
            while not (await asyncio.wait({reading}, timeout=ANSWER_S))[0]:
                self._fail("ClickHouse does not answer.")
                self._wake()
            self._take(reading.result())
        except (*DATABASE_ERRORS, ConfigurationError) as problem:
            self._fail(one_line(problem))
        except Exception:
            logger.exception("The page's reading failed.")
            self._fail("An unexpected error; see the log.")
        finally:
            reading.cancel()

    def _fail(self, problem: str) -> None:
        if self._outage.begins(problem):
            logger.error("The page cannot read the database: %s", problem)
        self._version += 1

    def _take(self, read: Round) -> None:
        self._version += 1
        if self._outage.ends():
            logger.info("The page reads the database again.")
        self._now, self._read_at = read.now, read.read_at
        self._status, self._parts = read.status, read.parts
        self._session, self._marks = read.session, read.marks
        for ticker in self._shown.keys() - read.marks.keys():
            del self._shown[ticker]
            self._gone[ticker] = self._version
        current = {ticker: shown.card for ticker, shown in self._shown.items()}
        current.update((card.ticker, card) for card in read.cards)
        for ticker, card in current.items():
            # They may change with nothing but the time.
            said = card.reason(read.now), card.condition(read.now)
            shown = self._shown.get(ticker)
            if shown is None or shown.card is not card or shown[1:3] != said:
                text = compact(card_json(card, *said))
                self._shown[ticker] = _Shown(card, *said, self._version, text)
                self._gone.pop(ticker, None)

    def _update(self, told: int) -> str:
        head = {
            "now": queries.clock_since(self._now, self._read_at).timestamp(),
            "problem": self._outage.reason,
            "status": status_json(self._status),
            **parts_json(self._parts, self._now),
            "session": self._session,
            "full": told == 0,
            "gone": [ticker for ticker, version in self._gone.items() if version > told > 0],
            **({"rule": RULE} if told == 0 else {}),
        }
        cards = ",".join(shown.json for shown in self._shown.values() if shown.version > told)
        # The cards are JSON already, written once for all viewers.
        return f'{compact(head)[:-1]},"cards":[{cards}]}}'
