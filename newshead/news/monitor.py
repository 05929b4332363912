"""The news side: from an article on the stream to its trigger file, rating and row."""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from newshead.core.parts import Part, PartState
from newshead.database.connection import (
    DATABASE_ERRORS,
    Database,
    one_line,
    until_database_works,
)
from newshead.database.queries import (
    latest_rated,
    listed_tickers,
    recent_hashes,
    stored_hashes,
)
from newshead.database.schema import create_tables
from newshead.database.store import Outbox, RowWriter
from newshead.database.tables import NewsRow
from newshead.loop import attempt, off_loop
from newshead.monitor.triggers import TriggerFolder
from newshead.news.intake import MEMORY_S, Intake, content_hash
from newshead.news.message import Article
from newshead.news.parts import ENDED, list_part, source_parts
from newshead.news.question import MAX_TICKERS, Opinion, Question, unrated
from newshead.news.rating import Analyst
from newshead.news.source import Source, SourceRefusedError, state_of
from newshead.news.sources import sources_of
from newshead.news.stories import Story, TriggerWriter, news_row, texts_of
from newshead.news.triggered import TriggeredNews
from newshead.settings import SOURCES, Settings

logger = logging.getLogger(__name__)

# From the first row that waits to the insert, the time to get there left out of 250 ms.
BATCH_S: Final = 0.2
RETRY_S: Final = 3.0
# Threads that read texts; one for each article of a burst would slow the loop.
READ_AT_ONCE: Final = 2
LIST_EVERY_S: Final = 600.0
STATS_EVERY_S: Final = 300.0
# At the end: for analyses under way, for the last rows, for the connections.
LAST_ANALYSES_S: Final = 1.0
LAST_FLUSH_S: Final = 2.0
TASKS_END_S: Final = 0.5
CLOSE_TIMEOUT_S: Final = 1.0

# Some 100 MB at the most.
MAX_KEPT_NEWS: Final = 10_000

T = TypeVar("T")


class NewsMonitor:
    """Take articles from the sources: a trigger file at once, then the rating and the row.

    All methods run on one event loop and never block it.

    Attributes
    ----------
    stats
        Those of the intake, of articles stored, each per ticker, and of those whose rating came
        late.
    """

    def __init__(
        self,
        settings: Settings,
        analyst: Analyst,
        *,
        any_ticker: bool = False,
        take_old: bool = False,
        streams: bool = True,
        hand_over: Callable[[str], Awaitable[None]] | None = None,
        list_problem: str = "",
    ) -> None:
        """
        Parameters
        ----------
        analyst
            Stays open at the end.
        any_ticker
            Take tickers that are not in `float_list` too.
        take_old
            Take articles older than 2 minutes too.
        streams
            Read the sources of `NEWS_SOURCES`, not only the news that triggers bring.
        hand_over
            Tells the price monitor of a ticker whose trigger file cannot be written.
        list_problem
            Why the ticker list is an older one.
        """
        self.settings = settings
        self._database = Database(settings)
        self._intake = Intake(
            any_ticker=any_ticker,
            take_old=take_old,
            max_tickers=settings.news_max_tickers,
            skipped_channels=settings.news_skip,
        )
        self.stats = self._intake.stats
        self.stats |= {"rows_stored": 0, "rated_late": 0}
        self._analyst = analyst
        self._sources = sources_of(settings, self.take) if streams else []
        folder = TriggerFolder(settings.trigger_folder)
        self._triggered = TriggeredNews(folder, self.take_triggered)
        self._triggers = TriggerWriter(folder, hand_over)
        self._readers = asyncio.Semaphore(READ_AT_ONCE)
        # Its connection serves one caller at a time.
        self._turn = threading.Lock()
        self._told_no_list = False
        self._list_problem = list_problem
        self._began_at = time.monotonic()
        self._ended = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._late: set[asyncio.Task[None]] = set()
        # Per ticker, when the newest article that was rated was detected.
        self._rated: dict[str, datetime] = {}
        self._on_their_way = 0
        # Rows that no batch has yet, and stories of all rows that are not stored yet.
        self._rows: list[NewsRow] = []
        self._untold: deque[tuple[Story, Opinion]] = deque()
        self._row_waits = asyncio.Event()
        self._writer = RowWriter(
            self._database, "rows of news", logger, outbox=Outbox(MAX_KEPT_NEWS), run=self._ask
        )

    # --- Life ---------------------------------------------------------------

    async def start(self) -> None:
        """Run the news side until it is cancelled.

        Raises
        ------
        DatabaseError, ClickHouseError, ConfigurationError
            The embedded database cannot be used.
        """
        parts: list[asyncio.Task[Any]] = []
        try:
            patient = not self.settings.embedded
            await until_database_works(self._database.connect, wait=patient)
            await until_database_works(self._load, wait=patient)
            self._log_list()
            for part in (
                *(self._keep_reading(source) for source in self._sources),
                self._triggered.run(),
                self._keep_storing(),
                self._keep_list(),
                self._keep_reporting(),
            ):
                parts.append(asyncio.create_task(part))
            await asyncio.gather(*parts)
        finally:
            self._ended = True
            for task in parts:
                task.cancel()
            await self._end(parts)

    async def _keep_reading(self, source: Source) -> None:
        """Read a source; one that refuses this user ends alone."""
        try:
            await source.run()
        except SourceRefusedError as problem:
            logger.error("%s", problem)

    def _load(self) -> None:
        create_tables(self._database)
        self._intake.memory.load(recent_hashes(self._database))
        self._load_list()

    async def _end(self, parts: Sequence[asyncio.Task[Any]]) -> None:
        """Store what can be stored in the time that is left."""
        ending = {*parts, *self._tasks, *self._late}
        for task in self._late:
            task.cancel()
        try:
            if ending:
                await asyncio.wait(ending, timeout=LAST_ANALYSES_S)
                for task in self._tasks:
                    task.cancel()
                await asyncio.wait(ending, timeout=TASKS_END_S)
            await attempt("to store the last rows of news", self._store(), LAST_FLUSH_S)
        finally:
            lost = len(self._writer.outbox) + len(self._rows) + self._on_their_way
            if lost:
                logger.error("%d rows of news could not be stored and are lost.", lost)
        if self.stats["articles"]:
            self.report_stats()
        closing = off_loop(self._database.close)
        await attempt("to close the database of the news side", closing, CLOSE_TIMEOUT_S)

    # --- Articles -----------------------------------------------------------

    def take(self, article: Article) -> None:
        """Begin with an article: for the sources, which it never fails."""
        try:
            self._begin(article, self._intake.take(article, time.time()))
        except Exception:
            logger.exception("Article %a failed; continuing with the next one.", article.title)

    def take_triggered(self, article: Article, stored: Callable[[], None]) -> None:
        """Begin with an article that a trigger brought, which the price monitor tracks; `stored`
        is called once there is nothing left to store."""
        try:
            tickers = self._intake.take_triggered(article, time.time())
            if not tickers:
                stored()
            self._begin(article, tickers, stored)
        except Exception:
            logger.exception("Article %a failed; continuing with the next one.", article.title)

    def _begin(
        self, article: Article, tickers: Sequence[str], stored: Callable[[], None] | None = None
    ) -> None:
        if tickers:
            task = asyncio.create_task(self._follow(article, tickers, stored))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _follow(
        self, article: Article, tickers: Sequence[str], stored: Callable[[], None] | None
    ) -> None:
        """Take an article all its way to the rows."""
        detected, arrived = datetime.now(UTC), time.monotonic()
        stories = [
            Story(article, t, content_hash(article, t), detected, stored=stored) for t in tickers
        ]
        self._on_their_way += len(stories)
        try:
            if article.age_s > MEMORY_S:
                stories = await self._not_stored_yet(stories)
            if stored is None:
                await self._triggers.write(stories)
            summary, content = await texts_of(article, self._readers)
            # Rows may wait for hours; the markup, of up to 16 MB, is not needed any more.
            for story in stories:
                story.article = article._replace(teaser="", body="")
            await asyncio.gather(
                *(
                    self._rate(
                        stories[n : n + MAX_TICKERS], summary, content, len(stories), arrived
                    )
                    for n in range(0, len(stories), MAX_TICKERS)
                )
            )
        except Exception:
            logger.exception("Article %a failed; other articles are not affected.", article.title)

    async def _not_stored_yet(self, stories: Sequence[Story]) -> list[Story]:
        """Return those that are not stored yet: for articles older than the memory reaches."""
        hashes = [story.hash for story in stories]
        try:
            stored = await self._ask(stored_hashes, self._database, hashes)
        except DATABASE_ERRORS as problem:
            # One old article twice does less harm than one that is lost.
            logger.warning(
                "Could not look up an old article, it may be taken twice: %s", one_line(problem)
            )
            return list(stories)
        new = [story for story in stories if story.hash not in stored]
        known = len(stories) - len(new)
        self.stats["known"] += known
        self._on_their_way -= known
        for story in stories:
            if story.stored is not None and story not in new:
                story.stored()
        return new

    async def _rate(
        self,
        stories: Sequence[Story],
        summary: str,
        content: str,
        tickers: int,
        arrived: float,
    ) -> None:
        """Get the opinions on some of an article's `tickers`, and with them the rows."""
        question = Question(
            headline=stories[0].article.title,
            text=content or summary,
            countries={story.ticker: self._intake.country(story.ticker) for story in stories},
            tickers=tickers,
            arrived=arrived,
        )
        began = time.perf_counter()
        try:
            answer = await self._analyst.rate(question)
        except asyncio.CancelledError:
            # At the end: the rows are worth keeping without a rating.
            for story in stories:
                opinion = unrated("newshead was stopped.")
                self._hand_over(story, summary, content, opinion, began)
                self._on_their_way -= 1
            raise
        for story in stories:
            self._hand_over(story, summary, content, answer.opinions[story.ticker], began)
            self._on_their_way -= 1
        if not answer.final:
            late = asyncio.create_task(self._rate_late(stories, summary, content, question))
            self._late.add(late)
            late.add_done_callback(self._late.discard)

    async def _rate_late(
        self, stories: Sequence[Story], summary: str, content: str, question: Question
    ) -> None:
        """Go on asking, and store the rows again once there is an answer."""
        began = time.perf_counter()
        try:
            opinions = await self._analyst.rate_late(question)
            rated = [story for story in stories if opinions.get(story.ticker, unrated("")).rated]
            for story in rated and await self._not_rated_since(rated):
                late = replace(story, late=True)
                self._hand_over(late, summary, content, opinions[story.ticker], began)
        except Exception:
            logger.exception("The late rating of %a failed.", question.headline)

    async def _not_rated_since(self, stories: Sequence[Story]) -> list[Story]:
        """Return those about whose ticker no article that came later is rated."""
        newest: dict[str, datetime] = {}
        try:
            tickers = [story.ticker for story in stories]
            newest = await self._ask(latest_rated, self._database, tickers)
        except DATABASE_ERRORS as problem:
            # Then this process's own articles decide.
            logger.debug("Could not look up later ratings: %s", one_line(problem))
        return [
            story
            for story in stories
            if not any(
                story.ticker in rated and rated[story.ticker] > story.detected
                for rated in (newest, self._rated)
            )
        ]

    def _hand_over(
        self, story: Story, summary: str, content: str, opinion: Opinion, began: float
    ) -> None:
        analysis_ms = (time.perf_counter() - began) * 1000
        now = datetime.now(UTC)
        self._rows.append(
            news_row(story, summary, content, opinion, analysis_ms=analysis_ms, now=now)
        )
        self._untold.append((story, opinion))
        if opinion.rated:
            before = self._rated.get(story.ticker, story.detected)
            self._rated[story.ticker] = max(before, story.detected)
        self._row_waits.set()

    # --- Rows ---------------------------------------------------------------

    async def _keep_storing(self) -> None:
        """Store rows as they come, those of 250 ms together."""
        while True:
            await self._row_waits.wait()
            await asyncio.sleep(BATCH_S)
            try:
                stored = await self._store()
            except Exception:
                logger.exception("Rows of news could not be stored; they are kept.")
                stored = False
            if not stored:
                await asyncio.sleep(RETRY_S)
                self._row_waits.set()

    async def _store(self) -> bool:
        """Store what waits; return False if the database did not take it all."""
        self._row_waits.clear()
        # No pause between these: a cancelled task must not lose what it took.
        self._writer.outbox.add(self._rows)
        self._rows = []
        for _ in range(self._writer.report_given_up()):
            self._untold.popleft()
        try:
            await self._writer.restore_tables()
        except DATABASE_ERRORS as problem:
            self._writer.failed(problem)
        else:
            await self._writer.flush()
        while len(self._untold) > len(self._writer.outbox) + len(self._rows):
            self._log_stored(*self._untold.popleft())
        return not self._writer.outbox

    def _log_stored(self, story: Story, opinion: Opinion) -> None:
        if story.late:
            self.stats["rated_late"] += 1
            logger.info(
                "News %s: %s, now rated %s %s, %.0f s after it came.",
                story.ticker,
                story.article.title,
                opinion.recommendation,
                opinion.confidence,
                story.age_ms / 1000,
            )
            return
        self.stats["rows_stored"] += 1
        if story.stored is not None:
            story.stored()
            trigger = "from a trigger"
        elif story.trigger_ms is None:
            trigger = "no trigger"
        else:
            trigger = f"trigger after {story.trigger_ms:.1f} ms"
        logger.info(
            "News %s: %s (%.0f s old), %s %s, %s, row after %.0f ms.",
            story.ticker,
            story.article.title,
            story.article.age_s,
            opinion.recommendation,
            opinion.confidence,
            trigger,
            story.age_ms,
        )

    async def _ask(self, function: Callable[..., T], *args: Any) -> T:
        """Do blocking work on the database's connection, one at a time."""

        def work() -> T:
            with self._turn:
                return function(*args)

        return await off_loop(work)

    # --- The ticker list and the figures -------------------------------------

    async def _keep_list(self) -> None:
        """Read the ticker list again from time to time; while that fails the old one stands."""
        while True:
            await asyncio.sleep(LIST_EVERY_S)
            try:
                await self._ask(self._load_list)
            except DATABASE_ERRORS as problem:
                logger.warning(
                    "Could not reload News.float_list, keeping the previous list: %s",
                    one_line(problem),
                )
            self._log_list()

    def _load_list(self) -> None:
        self._intake.list_tickers(listed_tickers(self._database))

    def _list_part(self) -> Part:
        return list_part(
            len(self._intake.countries),
            needed=bool(self._sources) and self._intake.needs_list,
            problem=self._list_problem,
        )

    def _log_list(self) -> None:
        part = self._list_part()
        if part.state is PartState.LOST and not self._told_no_list:
            self._told_no_list = True
            logger.error("%s", part.reason)

    def parts(self, now: datetime) -> list[Part]:
        """Return how the sources, the rating and the ticker list fare."""
        at = time.monotonic()
        found = [state_of(source, at) for source in self._sources]
        if self._ended:
            found = [each._replace(state=PartState.LOST, reason=ENDED) for each in found]
        return [
            *source_parts(found, SOURCES, now, at - self._began_at),
            self._analyst.part(),
            self._list_part(),
        ]

    async def _keep_reporting(self) -> None:
        while True:
            await asyncio.sleep(STATS_EVERY_S)
            self.report_stats()

    def report_stats(self) -> None:
        """Log the news side's figures."""
        figures = ", ".join(f"{name}={count}" for name, count in self.stats.items())
        logger.info(
            "News stats: messages=%d, no_articles=%d, %s, rows_waiting=%d%s",
            sum(source.messages for source in self._sources),
            sum(source.no_articles for source in self._sources),
            figures,
            len(self._writer.outbox) + len(self._rows) + self._on_their_way,
            "".join(
                f"; {source.name}: {source.reason or source.state.value}"
                for source in self._sources
            ),
        )
