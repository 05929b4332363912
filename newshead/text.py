"""Text of news sources, made safe for logs, rows and prompts; and the times they write."""

import html
import re
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from selectolax.lexbor import LexborHTMLParser

# More markup than an article's 8,000 characters of text lie in.
MAX_MARKUP: Final = 250_000
# Deeper than an article nests. The parser's time grows with length times depth.
MAX_DEPTH: Final = 500
# Longer than any time is written.
MAX_TIME: Final = 100
NO_TEXT: Final = ["script", "style", "template"]
# Of all others, `<ABC>` may be a ticker and `HR<MDR` a comparison.
_INLINE: Final = """
    a abbr acronym b bdi bdo big cite code data del dfn em font i ins kbd label mark nobr q rp rt
    ruby s samp small span strike strong sub sup time tt u var wbr"""
_BLOCKS: Final = """
    address area article aside audio base blockquote body br button canvas caption center col
    colgroup datalist dd details dialog dir div dl dt embed fieldset figcaption figure footer form
    frame frameset h1 h2 h3 h4 h5 h6 head header hgroup hr html iframe img input legend li link
    main map menu meta meter nav noframes noscript object ol optgroup option output p param
    picture pre progress script search section select slot source style summary svg table tbody
    td template textarea tfoot th thead title tr track ul video"""
_KNOWN: Final = {
    **dict.fromkeys(_INLINE.split(), ""),
    **dict.fromkeys(_BLOCKS.split(), " "),
}
# Those that nest no deeper for want of their ends: they have none, or the next one implies it.
_FLAT: Final = frozenset(
    {"area", "base", "br", "col", "colgroup", "dd", "dt", "embed", "hr", "img", "input", "li"}
    | {"link", "meta", "option", "p", "param", "source", "tbody", "td", "tfoot", "th", "thead"}
    | {"tr", "track", "wbr"}
)
# A bracket, and what makes it a tag if its name is known: attributes, whose values may hold
# brackets, or the next bracket. Names are looked up, since a pattern of them all is many times
# slower; the commonest tags are passed over at once.
_BRACKET: Final = re.compile(
    r"<(?!/?(?:p|b|i|br|li|td|tr|ul|em|div|span|strong)>)(?:/?([a-z][a-z0-9]*+)(?:\s*+/?>|\s++[\w:-]++\s*=|\s[^<>]*+>)|(!--|!doctype\b))?",
    re.I,
)
_TAG: Final = re.compile(r"</?([a-z][a-z0-9]*+)(?:\s[^<>]*+|/)?>", re.I)
_BEGIN: Final = re.compile(r"<(/?)([a-z][a-z0-9]*+)", re.I)
_ENTITY: Final = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")


def visible(text: str) -> str:
    """Return the text with a blank for each invisible character but the line's end."""
    # Nearly all text is, and this is many times as fast.
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


def folded(text: str, size: int) -> str:
    """Return the text as one line of at most `size` characters: white space and what cannot be seen
    become single blanks. What lies beyond 20 times that is not looked at."""
    line = " ".join(text[: 20 * size].split())[: 2 * size]
    return " ".join(visible(line).split())[:size].rstrip()


def _escaped(bracket: re.Match[str]) -> str:
    name, other = bracket.groups()
    is_tag = other or (name or "").lower() in _KNOWN
    return bracket[0] if is_tag else f"&lt;{bracket[0][1:]}"


def without_markup(markup: str, size: int) -> str:
    """Return the text of HTML as one line of at most `size` characters. Blocks; any thread.

    What lies behind MAX_MARKUP characters, or nests deeper than MAX_DEPTH, is cut off.
    """
    escaped = _not_deep(_BRACKET.sub(_escaped, markup[:MAX_MARKUP]))
    # Half of a surrogate pair is no text in UTF-8.
    parser = LexborHTMLParser(escaped.encode(errors="replace"))
    parser.strip_tags(NO_TEXT)
    return folded(parser.body.text(separator=" "), size) if parser.body else ""


def _not_deep(markup: str) -> str:
    """Return HTML up to where too many elements are open at once."""
    still_open: Counter[str] = Counter()
    depth = 0
    for tag in _BEGIN.finditer(markup):
        name = tag[2].lower()
        if name not in _KNOWN or name in _FLAT:
            continue
        if not tag[1]:
            still_open[name] += 1
            depth += 1
        elif still_open[name]:
            still_open[name] -= 1
            depth -= 1
        if depth > MAX_DEPTH:
            return markup[: tag.start()]
    return markup


def plain_title(markup: str, size: int) -> str:
    """Return a title as one line of at most `size` characters: without the tags of HTML, and with
    its entities decoded once."""
    text = markup[: 20 * size]
    if "<" in text:
        text = _TAG.sub(lambda tag: _KNOWN.get(tag[1].lower(), tag[0]), text)
    if "&" in text:
        text = _ENTITY.sub(lambda entity: html.unescape(entity[0]), text)
    return folded(text, size)


def plain_name(text: str) -> str:
    """Return a name in upper case, without blanks and punctuation, to compare it with others."""
    return "".join(c for c in text.upper() if c.isalnum())


def parse_time(text: str) -> datetime | None:
    """Return a time as news sources write it (ISO 8601 or RFC 2822; UTC if it names no zone)."""
    for parse in (datetime.fromisoformat, parsedate_to_datetime):
        with suppress(ValueError, OverflowError):
            parsed = parse(text[:MAX_TIME].strip())
            aware = parsed.astimezone(UTC) if parsed.tzinfo else parsed.replace(tzinfo=UTC)
            # Outside of this no column of ours could take it.
            return aware if 1970 < aware.year < 2100 else None
    return None
