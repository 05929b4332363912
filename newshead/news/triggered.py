"""News that trigger files bring along: the price monitor links them into a folder of their own."""

import hashlib
import json
import logging
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from newshead.core.tickers import parse_ticker
from newshead.loop import off_loop
from newshead.monitor.trigger_news import news_of
from newshead.monitor.triggers import (
    FolderEvents,
    RefusedError,
    TriggerFolder,
    UnreadableError,
    content_of,
)
from newshead.news.exchanges import Listing, Security
from newshead.news.message import Action, Article
from newshead.outage import Outage

logger = logging.getLogger(__name__)


class TriggeredNews:
    """The articles in the folder. One event loop."""

    def __init__(
        self, folder: TriggerFolder, take: Callable[[Article, Callable[[], None]], None]
    ) -> None:
        """`take` is called with every article, and with what to call once its row is stored."""
        self._folder = folder.news
        self._take = take
        # Those that were given and whose rows are not stored yet, or that cannot be removed.
        self._given: set[str] = set()
        self._outage = Outage()

    async def run(self) -> None:
        """Give articles as their files come, until it is cancelled."""
        with closing(FolderEvents(self._folder)) as events:
            while True:
                events.begin_round()
                await off_loop(events.follow)
                for path in await off_loop(self._files):
                    events.found()
                    await self._give(path)
                await events.wait()

    def _files(self) -> list[Path]:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            names = {path.name for path in self._folder.glob("immediate_*.json")}
        except OSError as problem:
            if self._outage.begins(str(problem)):
                logger.error("News of triggers cannot be read: %s", problem)
            return []
        self._outage.ends()
        self._given &= names
        return [self._folder / name for name in sorted(names - self._given)]

    async def _give(self, path: Path) -> None:
        self._given.add(path.name)
        try:
            article = await off_loop(_article, path)
        except (OSError, ValueError, RecursionError, UnreadableError, RefusedError) as problem:
            logger.warning("News of trigger %a is not usable: %s", path.name, problem)
            self._remove(path)
        else:
            self._take(article, lambda: self._remove(path))

    def _remove(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as problem:
            logger.error("News of trigger %a cannot be removed: %s", path.name, problem)


def _article(path: Path) -> Article:
    """Return the article in a file.

    Raises
    ------
    OSError, ValueError, RecursionError, UnreadableError, RefusedError
        It holds none.
    """
    received_at, received = time.perf_counter(), datetime.now(UTC)
    text, _ = content_of(path)
    content = json.loads(text)
    news, _ = news_of(content) if isinstance(content, dict) else (None, ())
    ticker = parse_ticker(content.get("ticker")) if news else None
    if news is None or ticker is None:
        raise ValueError("it holds no headline or no ticker")
    headline = hashlib.md5(news.headline.encode(), usedforsecurity=False).hexdigest()
    return Article(
        action=Action.CREATED,
        id="" if news.url else headline,
        url=news.url,
        title=news.headline,
        teaser="",
        body=news.text,
        securities=(Security(ticker, "", Listing.US),),
        channels=frozenset(),
        created=news.published or received,
        updated=None,
        received=received,
        received_at=received_at,
        source=news.source,
    )
