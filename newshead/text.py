"""Text of news sources, made safe for logs, rows and prompts; and the times they write."""

from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from selectolax.lexbor import LexborHTMLParser

# More markup than an article's 8,000 characters of text lie in. Hostile markup
# costs the parser time by the square of its length.
MAX_MARKUP: Final = 250_000
NO_TEXT: Final = ["script", "style", "template"]


def visible(text: str) -> str:
    """Return the text with a blank for each invisible character but the line's end."""
    # Nearly all text is, and this is many times as fast.
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


def folded(text: str, size: int) -> str:
    """Return the text as one line of at most `size` characters: white space and what cannot be seen
    become single blanks."""
    return " ".join(visible(" ".join(text.split())[: 2 * size]).split())[:size].rstrip()


def without_markup(html: str, size: int) -> str:
    """Return the text of HTML as one line of at most `size` characters. Blocks; any thread.

    Hostile markup may take seconds, in which other threads run.
    """
    # Half of a surrogate pair is no text in UTF-8.
    parser = LexborHTMLParser(html[:MAX_MARKUP].encode(errors="replace"))
    parser.strip_tags(NO_TEXT)
    return folded(parser.body.text(separator=" "), size) if parser.body else ""


def parse_time(text: str) -> datetime | None:
    """Return a time as news sources write it (ISO 8601 or RFC 2822; UTC if it names no zone)."""
    for parse in (datetime.fromisoformat, parsedate_to_datetime):
        with suppress(ValueError, OverflowError):
            parsed = parse(text.strip())
            aware = parsed.astimezone(UTC) if parsed.tzinfo else parsed.replace(tzinfo=UTC)
            # Outside of this no column of ours could take it.
            return aware if 1970 < aware.year < 2100 else None
    return None
