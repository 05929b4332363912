"""A story: an article about one ticker, with its trigger file and its row."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from newshead.database.tables import NewsRow
from newshead.loop import off_loop
from newshead.monitor.triggers import TriggerFolder
from newshead.news.message import Article
from newshead.news.question import Opinion
from newshead.text import without_markup

logger = logging.getLogger(__name__)

# A disk that hangs delays the rating by this much.
TRIGGER_TIMEOUT_S: Final = 2.0
# Hostile markup delays the rating by this much.
TEXT_TIMEOUT_S: Final = 1.0
MAX_SUMMARY: Final = 1_000
MAX_TEXT: Final = 8_000


@dataclass(eq=False)
class Story:
    """An article about one ticker, on its way."""

    article: Article
    ticker: str
    hash: str
    detected: datetime
    trigger_ms: float | None = None
    """From the message to the trigger file; None if there is none."""
    stored: Callable[[], None] | None = None
    """What to call once its row is stored; of news that a trigger brought."""
    late: bool = False
    """Whether its row was stored unrated, and is stored again with its rating."""

    @property
    def age_ms(self) -> float:
        """Milliseconds since the message came."""
        return (time.perf_counter() - self.article.received_at) * 1000


def news_row(
    story: Story,
    summary: str,
    content: str,
    opinion: Opinion,
    *,
    analysis_ms: float,
    now: datetime,
) -> NewsRow:
    """Return the row of a story that was rated at `now`, after `analysis_ms` milliseconds."""
    article = story.article
    return NewsRow(
        timestamp=story.detected,
        source=article.source,
        ticker=story.ticker,
        headline=article.title,
        published_utc=article.published.isoformat(),
        article_url=article.url,
        summary=summary,
        full_content=content,
        detected_at=story.detected,
        processing_latency_ms=round(story.age_ms),
        market_relevant=int(opinion.recommendation != "HOLD"),
        source_check_time=article.received,
        content_hash=story.hash,
        news_type="other",
        urgency_score=0,
        sentiment=opinion.sentiment,
        recommendation=opinion.recommendation,
        confidence=opinion.confidence,
        explanation=opinion.explanation,
        analysis_time_ms=round(analysis_ms),
        analyzed_at=now,
    )


class TriggerWriter:
    """Write the trigger files, off the loop, in one thread at a time. One event loop."""

    def __init__(
        self, folder: TriggerFolder, hand_over: Callable[[str], Awaitable[None]] | None = None
    ) -> None:
        """
        Parameters
        ----------
        hand_over
            Tells the price monitor of a ticker whose file cannot be written.
        """
        self._folder = folder
        self._hand_over = hand_over
        self._waiting: list[Story] = []
        self._work: asyncio.Task[None] | None = None

    async def write(self, stories: Sequence[Story]) -> None:
        """Write a file for each story, and note when.

        Return once the files of all articles that came meanwhile are written
        too: in a burst they go before any rating, which would slow them. What
        cannot be written, or not within 2 s since the disk hangs, is handed over and logged.
        """
        self._waiting.extend(stories)
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._write_waiting())
        written, _ = await asyncio.wait({self._work}, timeout=TRIGGER_TIMEOUT_S)
        if written:
            return
        self._waiting = [story for story in self._waiting if story not in stories]
        for story in stories:
            if story.trigger_ms is None:
                await self._do_without(story.ticker, f"no answer within {TRIGGER_TIMEOUT_S:.0f} s")

    async def _write_waiting(self) -> None:
        while self._waiting:
            stories, self._waiting = self._waiting, []
            for ticker, reason in await off_loop(self._write, stories):
                await self._do_without(ticker, reason)

    def _write(self, stories: Sequence[Story]) -> list[tuple[str, str]]:
        """Write the files; return the tickers without one, each with the reason. Blocks."""
        failed = []
        for story in stories:
            try:
                self._folder.write(story.ticker, story.detected)
            except OSError as problem:
                failed.append((story.ticker, problem.strerror or str(problem)))
            else:
                story.trigger_ms = story.age_ms
        return failed

    async def _do_without(self, ticker: str, reason: str) -> None:
        if self._hand_over is not None:
            await self._hand_over(ticker)
        logger.error(
            "No trigger for %s (%s): %s. Check the trigger folder.",
            ticker,
            reason,
            "its price is not watched"
            if self._hand_over is None
            else "the price monitor was told of it directly",
        )


async def texts_of(article: Article, readers: asyncio.Semaphore) -> tuple[str, str]:
    """Return summary and content without markup; empty where that takes too long. `readers` bounds
    the threads that read at once."""

    def read() -> tuple[str, str]:
        summary = without_markup(article.teaser, MAX_SUMMARY)
        return summary, without_markup(article.body, MAX_TEXT)

    try:
        async with readers, asyncio.timeout(TEXT_TIMEOUT_S):
            return await off_loop(read)
    except TimeoutError:
        logger.warning("Reading the text of %a timed out; only its title is rated.", article.title)
        return "", ""
