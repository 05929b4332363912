"""Which articles are news, and for which tickers: each once, fresh, and about a listed stock.

No I/O and no clock: the caller hands in `now`.
"""

import hashlib
import logging
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Final

from newshead.core.tickers import ibkr_name
from newshead.news.clock import ClockCheck
from newshead.news.exchanges import Listing
from newshead.news.message import Action, Article
from newshead.outage import Repeated
from newshead.text import plain_name

logger = logging.getLogger(__name__)

MAX_AGE_S: Final = 120.0
# How long an article is remembered without asking the database.
MEMORY_S: Final = 86_400.0
# Unknown exchanges that are named in the log, each once.
MAX_NAMED: Final = 100


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


class Earlier:
    """What earlier messages about each article, within the last day and this run, named."""

    def __init__(self) -> None:
        self._named: dict[str, tuple[float, set[str]]] = {}

    def named(self, article_id: str) -> Collection[str] | None:
        """Return the symbols; None where there was no message."""
        known = self._named.get(article_id)
        return None if known is None else frozenset(known[1])

    def add(self, article: Article, now: float) -> None:
        """Remember a message that came at `now` (Unix seconds)."""
        while self._named and next(iter(self._named.values()))[0] < now - MEMORY_S:
            del self._named[next(iter(self._named))]
        if article.id:
            _, symbols = self._named.setdefault(article.id, (now, set()))
            symbols.update(security.symbol for security in article.securities)


class Intake:
    """Decides which articles are taken, for which tickers.

    Attributes
    ----------
    memory
        What was taken before.
    countries
        The listed tickers, by IBKR's names, with their companies' countries.
    stats
        Counts. Of articles: all; those left out as old, deleted, naming too many tickers, of
        skipped channels; those whose tickers are not understood. Of tickers left out: known
        before, undated in a replay, not listed, listed abroad or no stocks. Of tickers on an
        unknown exchange.
    """

    def __init__(
        self,
        *,
        any_ticker: bool = False,
        take_old: bool = False,
        max_tickers: int = 10,
        skipped_channels: Collection[str] = (),
    ) -> None:
        """
        Parameters
        ----------
        any_ticker
            Take tickers that are not listed too.
        take_old
            Take articles older than 2 minutes too.
        max_tickers
            Articles that name more are left out.
        skipped_channels
            Articles all of whose channels are among these are left out.
        """
        self.memory = Memory()
        self.countries: dict[str, str] = {}
        counted = "articles old deleted many_tickers skipped not_understood known undated"
        self.stats = dict.fromkeys(
            [*counted.split(), "not_listed", "foreign", "unknown_exchange"], 0
        )
        self._any_ticker = any_ticker
        self._take_old = take_old
        self._max_tickers = max_tickers
        self._skipped = {plain_name(channel) for channel in skipped_channels}
        self._earlier = Earlier()
        self._not_understood = Repeated()
        self._clock = ClockCheck(MAX_AGE_S)
        self._exchanges_told: set[str] = set()

    @property
    def needs_list(self) -> bool:
        """Whether only tickers of the list are taken."""
        return not self._any_ticker

    def list_tickers(self, countries: Mapping[str, str]) -> None:
        """Replace the ticker list; the countries are by ticker, in any spelling."""
        self.countries = {ibkr_name(ticker): country for ticker, country in countries.items()}

    def country(self, ticker: str) -> str:
        """Return the country of a ticker's company; empty where it is not listed."""
        return self.countries.get(ibkr_name(ticker), "")

    def take(self, article: Article, now: float) -> list[str]:
        """Return the tickers for which an article is news at `now` (Unix seconds)."""
        self.stats["articles"] += 1
        if self._is_no_news(article):
            return []
        earlier = self._earlier.named(article.id)
        self._earlier.add(article, now)
        if earlier is None and article.action is Action.CREATED:
            self._check_clock(article, now)
        times = {
            ticker: _time_of(article, ticker, earlier) for ticker in self._tickers(article, now)
        }
        fresh = [ticker for ticker, time in times.items() if not self._is_old(article, time)]
        if not fresh and self._is_old(article, *(times.values() or (article.created,))):
            self.stats["old"] += 1
            logger.debug("Article %a is %.0f s old.", article.title, article.age_s)
        taken = []
        for ticker in fresh:
            if not self._any_ticker and ibkr_name(ticker) not in self.countries:
                self.stats["not_listed"] += 1
                logger.debug("%s, in %a, is not in float_list.", ticker, article.title)
            elif not self.memory.add(_marks(article, ticker), now):
                self.stats["known"] += 1
            elif article.replayed and times[ticker] is None:
                self.stats["undated"] += 1
                logger.debug("Article %a came again and names no time.", article.title)
            else:
                taken.append(ticker)
        return taken

    def take_triggered(self, article: Article, now: float) -> list[str]:
        """Return the ticker of news that a trigger brought, unless it is known: whoever wrote the
        trigger has decided all else."""
        self.stats["articles"] += 1
        [ticker] = article.tickers
        if self.memory.add([content_hash(article, ticker)], now):
            return [ticker]
        self.stats["known"] += 1
        return []

    def _check_clock(self, article: Article, now: float) -> None:
        if article.replayed or (article.created is None and not article.ahead_s):
            return
        off_s = self._clock.add(-article.ahead_s or article.age_s, now)
        if off_s > 0:
            logger.warning(
                "This machine's clock seems to be about %.0f s ahead: most articles of the last "
                "minutes are that old when they come. Synchronise it (NTP); news over %.0f s old "
                "is left out.",
                off_s,
                MAX_AGE_S,
            )
        elif off_s < 0:
            logger.warning(
                "This machine's clock seems to be about %.0f s behind: most articles of the last "
                "minutes come from its future. Synchronise it (NTP); news is older than it looks.",
                -off_s,
            )

    def _is_no_news(self, article: Article) -> bool:
        """Return whether an article is left out, and not remembered, for what it is."""
        if article.action is Action.DELETED:
            reason = "deleted"
        elif len(article.securities) > self._max_tickers:
            reason = "many_tickers"
        elif article.channels and article.channels <= self._skipped:
            reason = "skipped"
        else:
            return False
        self.stats[reason] += 1
        logger.debug("Article %a, id %a, is left out: %s.", article.title, article.id, reason)
        return True

    def _tickers(self, article: Article, now: float) -> list[str]:
        """Return the tickers that an article names; of unknown exchanges those that are listed."""
        found = []
        for symbol, exchange, listing in article.securities:
            if listing is Listing.US:
                found.append(symbol)
            elif listing is Listing.FOREIGN:
                self.stats["foreign"] += 1
                logger.debug("%a (%a), in %a, is no US ticker.", symbol, exchange, article.title)
            elif listing is Listing.UNKNOWN:
                self.stats["unknown_exchange"] += 1
                self._tell_exchange(exchange, symbol)
                if ibkr_name(symbol) in self.countries:
                    found.append(symbol)
        listings = {security.listing for security in article.securities}
        if listings == {Listing.NOT_UNDERSTOOD}:
            self.stats["not_understood"] += 1
            if count := self._not_understood.happens(now):
                logger.warning(
                    "None of the tickers of article %a is understood, such as %a (%d such articles "
                    "since the last line).",
                    article.title,
                    article.securities[0].symbol,
                    count,
                )
        return found

    def _tell_exchange(self, exchange: str, symbol: str) -> None:
        name = plain_name(exchange)
        if name not in self._exchanges_told and len(self._exchanges_told) < MAX_NAMED:
            self._exchanges_told.add(name)
            logger.warning(
                "Unknown exchange %a, of %s: its tickers are taken only where float_list has them.",
                exchange,
                symbol,
            )

    def _is_old(self, article: Article, *times: datetime | None) -> bool:
        """Return whether an article is too old by all of these times."""
        # What a replay brings was never asked for one by one.
        limited = article.replayed or not self._take_old
        limit = article.received - timedelta(seconds=MAX_AGE_S)
        return limited and all(time is not None and time < limit for time in times)


def _time_of(article: Article, ticker: str, earlier: Collection[str] | None) -> datetime | None:
    """Return the time that decides whether an article is fresh for a ticker: that of its update
    where earlier messages did not name the ticker."""
    added = earlier is not None and ticker not in earlier
    return article.updated if added and article.updated is not None else article.created
