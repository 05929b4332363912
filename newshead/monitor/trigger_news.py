"""The news that a trigger file may bring along. No I/O, no clock."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from newshead.text import folded, parse_time, plain_title

SOURCE: Final = "trigger"
MAX_HEADLINE: Final = 1_000
MAX_URL: Final = 2_000
MAX_SOURCE: Final = 100


class TriggerNews(NamedTuple):
    """News about a trigger's ticker."""

    headline: str
    url: str
    """Empty where there is none."""
    text: str
    """As it came."""
    source: str
    published: datetime | None
    """UTC; None where the file names no time."""


def news_of(content: Mapping[str, Any]) -> tuple[TriggerNews | None, list[str]]:
    """Return the news in a trigger's content, None where it brings none, and the names of fields
    that are of no use; these count as missing."""
    unusable = []
    texts = {}
    for name in ("headline", "url", "text", "source", "published"):
        value = content.get(name)
        texts[name] = value if isinstance(value, str) else ""
        if value is not None and not isinstance(value, str):
            unusable.append(name)
    published = parse_time(texts["published"])
    if texts["published"].strip() and published is None:
        unusable.append("published")
    headline = plain_title(texts["headline"], MAX_HEADLINE)
    if not headline:
        if "headline" not in unusable and (texts["url"] or texts["text"]):
            unusable.append("headline")
        return None, unusable
    return (
        TriggerNews(
            headline=headline,
            url=folded(texts["url"], MAX_URL),
            text=texts["text"],
            source=folded(texts["source"], MAX_SOURCE) or SOURCE,
            published=published,
        ),
        unusable,
    )
