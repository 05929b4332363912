"""Whether the sources of news, the rating service, the ticker list and push can be used."""

import asyncio
import time
from contextlib import suppress
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

from dashboard.notify import test_message
from dashboard.services import Service
from newshead.check.finding import Finding, failed, off, ok
from newshead.core.parts import PartState
from newshead.loop import off_loop
from newshead.news import ticker_list
from newshead.news.message import Article
from newshead.news.question import Question
from newshead.news.rating import Analyst
from newshead.news.source import CONNECTING, Source, SourceRefusedError
from newshead.news.sources import KEYS, sources_of
from newshead.settings import ConfigurationError, Settings

# Longer than a source gives its server.
SOURCE_WITHIN_S: Final = 16.0
LOOK_EVERY_S: Final = 0.05
# What `--send` has rated.
TICKER: Final = "SPY"
HEADLINE: Final = "Test of the connection, not news"


async def sources(settings: Settings) -> list[Finding]:
    """Return how each source fares; of the wires, each feed."""
    # Nothing is to be sent again.
    quiet = replace(settings, benzinga_replay=False)
    wanted = []
    for name in dict.fromkeys(settings.news_sources):
        if name == "wires":
            for feed in dict.fromkeys(settings.wire_feeds):
                title = f"{name}: {urlsplit(feed).hostname}"
                wanted.append((title, replace(quiet, news_sources=(name,), wire_feeds=(feed,))))
        else:
            wanted.append((name, replace(quiet, news_sources=(name,))))
    return list(await asyncio.gather(*(_source(title, alone) for title, alone in wanted)))


async def _source(title: str, alone: Settings) -> Finding:
    found = sources_of(alone, _ignore)
    if not found:
        (name,) = alone.news_sources
        return off("news", f"{title}: not configured ({', '.join(KEYS[name])})")
    source = found[0]
    try:
        await _await_first_state(source)
    except SourceRefusedError as problem:
        return failed("news", f"{title}: {problem}")
    if source.state is PartState.OK:
        return ok("news", f"{title}: connected")
    return failed("news", f"{title}: {source.reason} See docs/troubleshooting.md.")


def _ignore(_article: Article) -> None:
    """Articles are not what is looked for."""


async def _await_first_state(source: Source) -> None:
    """Wait for the end of a source's first attempt to connect.

    Raises
    ------
    SourceRefusedError
        It refuses this user.
    """
    running = asyncio.create_task(source.run())
    try:
        until = time.monotonic() + SOURCE_WITHIN_S
        while source.reason == CONNECTING and not running.done() and time.monotonic() < until:
            await asyncio.wait({running}, timeout=LOOK_EVERY_S)
        if running.done():
            await running
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError, SourceRefusedError):
            await running


async def rating(settings: Settings, *, send: bool) -> list[Finding]:
    """Return how the rating service takes each key; `send` pays for the rating of one headline."""
    part = "rating"
    if not settings.anthropic_keys:
        return [off(part, "no key (ANTHROPIC_API_KEY): every article is HOLD, nothing will alert")]
    analyst = await off_loop(Analyst, settings)
    try:
        found = [
            failed(part, f"{variable}: {problem}") if problem else ok(part, f"{variable} is taken")
            for variable, problem in (await analyst.try_keys()).items()
        ]
        if send:
            question = Question(HEADLINE, "", {TICKER: "USA"}, 1, time.monotonic())
            opinion = (await analyst.rate(question)).opinions[TICKER]
            found.append(
                ok(part, f"a headline is rated {opinion.recommendation}")
                if opinion.rated
                else failed(part, opinion.explanation)
            )
        return found
    finally:
        await analyst.close()


async def listed(settings: Settings) -> Finding:
    """Return how the source of the ticker list fares; the list in the database stays."""
    part = "ticker list"
    source = ticker_list.source_of(settings)
    if source is None:
        return off(part, "no source (TICKER_LIST_CSV, FINVIZ_EXPORT_URL): News.float_list stays")
    try:
        found = await ticker_list.read(settings)
    except ticker_list.ListError as problem:
        return failed(part, f"{source}: {problem}")
    return ok(part, f"{source}: {len(found.stocks)} stocks")


async def push(settings: Settings, *, send: bool) -> list[Finding]:
    """Return how the services of ALERT_URLS fare; only `send` sends them a message."""
    if not settings.alert_urls:
        return [off("push", "no address (ALERT_URLS)")]
    addresses = enumerate(settings.alert_urls, 1)
    return list(await asyncio.gather(*(off_loop(_push, *each, send) for each in addresses)))


def _push(number: int, address: str, send: bool) -> Finding:
    try:
        service = Service(number, address)
    except ConfigurationError as problem:
        return failed("push", str(problem))
    if not send:
        return ok("push", f"{service.name}: not tried; --send sends a message")
    if reason := service.try_out(test_message()):
        return failed("push", f"{service.name}: {reason}")
    return ok("push", f"{service.name}: sent")
