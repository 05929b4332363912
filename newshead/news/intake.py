"""Which articles are news, and for which tickers: each once, fresh, and about a listed stock.

No I/O and no clock: the caller hands in `now`.
"""

import hashlib
import logging
from collections.abc import Collection, Mapping
from typing import Final

from newshead.core.tickers import ibkr_name
from newshead.news.message import Action, Article

logger = logging.getLogger(__name__)

MAX_AGE_S: Final = 120.0
# How long an article is remembered without asking the database.
MEMORY_S: Final = 86_400.0


def content_hash(article: Article, ticker: str) -> str:
    """Return what makes an article about a ticker be taken once: MD5 of `<url>_<ticker>`; the
    article's id stands for the url of one that has none."""
    text = f"{article.url or article.id}_{ticker}"
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _marks(article: Article, ticker: str) -> list[str]:
    """Return what identifies a known article: its hash, and its id, since an update may come with
    another headline and, made from that, another url."""
    marks = [content_hash(article, ticker)]
    return [*marks, f"{article.id}_{ticker}"] if article.id else marks


class Memory:
    """What was seen within the last day."""

    def __init__(self) -> None:
        self._seen: dict[str, float] = {}

    def load(self, seen: dict[str, int]) -> None:
        """Add keys, oldest first, with the Unix times they were seen at."""
        self._seen.update(seen)

    def add(self, keys: Collection[str], now: float) -> bool:
        """Remember `keys`, seen at `now` (Unix seconds); return whether none of them was known."""
        while self._seen and next(iter(self._seen.values())) < now - MEMORY_S:
            del self._seen[next(iter(self._seen))]
        new = self._seen.keys().isdisjoint(keys)
        for key in keys:
            self._seen.setdefault(key, now)
        return new


class Intake:
    """Decides which articles are taken, for which tickers.

    Attributes
    ----------
    memory
        What was taken before.
    countries
        The listed tickers, by IBKR's names, with their companies' countries.
    stats
        Counts: of articles, of those left out as old, deleted or known before, and of tickers that
        are not listed.
    """

    def __init__(self, *, any_ticker: bool = False, take_old: bool = False) -> None:
        """
        Parameters
        ----------
        any_ticker
            Take tickers that are not listed too.
        take_old
            Take articles older than 2 minutes too.
        """
        self.memory = Memory()
        self.countries: dict[str, str] = {}
        self.stats = dict.fromkeys(("articles", "old", "deleted", "known", "not_listed"), 0)
        self._any_ticker = any_ticker
        self._take_old = take_old

    @property
    def takes_nothing(self) -> bool:
        """Whether no article can be taken: no stock is listed."""
        return not (self._any_ticker or self.countries)

    def list_tickers(self, countries: Mapping[str, str]) -> None:
        """Replace the ticker list; the countries are by ticker, in any spelling."""
        self.countries = {ibkr_name(ticker): country for ticker, country in countries.items()}

    def country(self, ticker: str) -> str:
        """Return the country of a ticker's company; empty where it is not listed."""
        return self.countries.get(ibkr_name(ticker), "")

    def take(self, article: Article, now: float) -> list[str]:
        """Return the tickers for which an article is news at `now` (Unix seconds)."""
        self.stats["articles"] += 1
        if article.action is Action.DELETED:
            self.stats["deleted"] += 1
            logger.debug("Article %a was deleted.", article.id)
            return []
        if article.age_s > MAX_AGE_S and not self._take_old:
            self.stats["old"] += 1
            logger.debug("Article %a is %.0f s old.", article.title, article.age_s)
            return []
        taken = []
        for ticker in article.tickers:
            if not self._any_ticker and ibkr_name(ticker) not in self.countries:
                self.stats["not_listed"] += 1
                logger.debug("%s, in %a, is not in float_list.", ticker, article.title)
            elif self.memory.add(_marks(article, ticker), now):
                taken.append(ticker)
            else:
                self.stats["known"] += 1
        return taken
