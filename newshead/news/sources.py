"""The sources of news that the user wants, as far as they are configured."""

import logging
from collections.abc import Callable

from newshead.news.alpaca import AlpacaStream
from newshead.news.benzinga import BenzingaStream
from newshead.news.message import Article
from newshead.news.source import Source
from newshead.settings import Settings

logger = logging.getLogger(__name__)


def sources_of(settings: Settings, take: Callable[[Article], None]) -> list[Source]:
    """Return the sources of `NEWS_SOURCES`; one line says of each that lacks a key what follows.

    `take` is called with every article; it must not block.
    """
    found: list[Source] = []
    for name in dict.fromkeys(settings.news_sources):
        match name:
            case "benzinga" if settings.benzinga_api_key:
                found.append(BenzingaStream(settings, take))
            case "benzinga":
                _log_unconfigured(name, "BENZINGA_API_KEY")
            case "alpaca" if settings.alpaca_api_key and settings.alpaca_api_secret:
                found.append(AlpacaStream(settings, take))
            case "alpaca":
                _log_unconfigured(name, "ALPACA_API_KEY, ALPACA_API_SECRET")
            case "wires":
                # Its libraries are of no use to the others.
                from newshead.news.wires import Wires

                found.append(Wires(settings, take))
    return found


def _log_unconfigured(name: str, variables: str) -> None:
    logger.warning("No news comes from %s: it is not configured (%s).", name, variables)
