"""Text of others for a message: it mentions nobody, and no headline becomes a link or markup."""

import re
from typing import Final

from newshead.text import visible

# What reads these is a program: it gets the text as it is.
DATA_SCHEMES: Final = ("json", "jsons", "xml", "xmls", "form", "forms")
# These show Markdown, and take a backslash before its characters.
MARKDOWN_SCHEMES: Final = (
    *("discord", "mmost", "mmosts", "mattermost", "rocket", "rockets"),
    *("guilded", "revolt", "zulip", "matrix", "matrixs"),
)
# Nobody sees it, and no line breaks at it.
WORD_JOINER: Final = "\u2060"
# Behind these something begins to act: a mention, a tag, an address, a domain's last part.
_ACTS: Final = re.compile(r"@|<(?=\S)|:(?=//)|\](?=\()|(?<=\w)\.(?=[^\W\d_]{2})")
_MARKDOWN: Final = re.compile(r"([\\`*_~|#>\[\]])")


def escaped(text: str, scheme: str) -> str:
    """Return text as a service takes it for plain text.

    Parameters
    ----------
    scheme
        The service's, as its address begins.
    """
    if scheme in DATA_SCHEMES:
        return text
    inert = _ACTS.sub(lambda found: found[0] + WORD_JOINER, visible(text))
    return _MARKDOWN.sub(r"\\\1", inert) if scheme in MARKDOWN_SCHEMES else inert
