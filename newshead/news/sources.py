"""The sources of news that the user wants, as far as they are configured."""

import logging
from collections.abc import Callable
from typing import Final

from newshead.news.alpaca import AlpacaStream
from newshead.news.benzinga import BenzingaStream
from newshead.news.message import Article
from newshead.news.source import Source
from newshead.settings import Settings

logger = logging.getLogger(__name__)

# The variables that a source is nothing without.
KEYS: Final[dict[str, tuple[str, ...]]] = {
    "benzinga": ("BENZINGA_API_KEY",),
    "alpaca": ("ALPACA_API_KEY", "ALPACA_API_SECRET"),
    "wires": (),
}


def sources_of(settings: Settings, take: Callable[[Article], None]) -> list[Source]:
    """Return the sources of `NEWS_SOURCES`; one line says of each that lacks a key what follows.

    `take` is called with every article; it must not block.
    """
    found: list[Source] = []
    for name in dict.fromkeys(settings.news_sources):
        if not all(getattr(settings, key.lower()) for key in KEYS[name]):
            logger.warning(
                "No news comes from %s: it is not configured (%s).", name, ", ".join(KEYS[name])
            )
            continue
        match name:
            case "benzinga":
                found.append(BenzingaStream(settings, take))
            case "alpaca":
                found.append(AlpacaStream(settings, take))
            case "wires":
                # Its libraries are of no use to the others.
                from newshead.news.wires import Wires

                found.append(Wires(settings, take))
    return found
