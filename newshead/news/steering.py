"""Whether an article tries to steer whoever rates it. No I/O, no clock."""

import re
import unicodedata
from typing import Final

_RATER: Final = (
    r"(?:a\.?i\.? (?:assistant|model|system|rater|agent|analyst)s?|llms?|"
    r"(?:large )?language models?|claude|chat ?gpt|assistant|rater|classifier|"
    r"sentiment (?:model|analyst|analysis))"
)
_NEWS: Final = r"(?:article|news|headline|story|text|message|press release)"
# What it does → how that reads, in text whose white space is single blanks. An analyst's rating is
# news; an order to rate is not.
_SIGNS: Final = {
    "addresses a model": re.compile(
        rf"\b(?:dear|hey|hello|attention|notes? (?:to|for)|instructions? (?:to|for)|to any|to the)"
        rf"[,:]? (?:all |any |the |an? )?{_RATER}\b[,:.!]"
        rf"|\b(?:notes?|instructions?|message) (?:to|for) (?:all |any |the |an? )?{_RATER}\b"
        rf"|\byou are (?:now )?(?:an? |the )(?:helpful |honest )*{_RATER}\b"
        rf"|\bif you are (?:an? |the )?{_RATER}\b|\bas an? {_RATER},? you\b",
        re.IGNORECASE,
    ),
    "overrides instructions": re.compile(
        r"\b(?:ignore|disregard|forget|override|bypass)\b[^.]{0,30}"
        r"\b(?:previous|prior|above|earlier|your|system)\b[^.]{0,20}"
        r"\b(?:instructions?|prompts?|rules)\b",
        re.IGNORECASE,
    ),
    "dictates an answer": re.compile(
        rf"\b(?:rate|mark|classify|label|score|treat|judge) (?:this|the|that|my) {_NEWS} "
        r"(?:as )?(?:an? )?(?:strong(?:ly)? |very )?[\"'\u201c]?(?:buy|sell|bullish|positive)\b"
        r"|\b(?:respond|reply|answer|output|return)(?: with)? (?:only|just|exactly)\b"
        r"|\b(?:respond|reply|answer|output)(?: with)?:? ?[\"'\u201c{](?:buy|sell|hold|\{|\")"
        r"|[\"'](?:recommendation|confidence|ratings|sentiment)[\"'] ?: ?[\"'\[{]"
        r"|\byour (?:recommendation|rating|confidence|answer|output|response) "
        r"(?:must|should|has to) "
        r"|\bset (?:the |your )?confidence (?:to|as) (?:high|medium|low)\b",
        re.IGNORECASE,
    ),
    "fakes a role": re.compile(
        r"<\|?/?(?:im_start|im_end|system|assistant|user|human|article|instructions?|endoftext)\b"
        r"|\[/?(?:inst|system|assistant)\]|<< ?sys"
        r"|#{2,} ?(?:system|instructions?|assistant)\b"
        r"|(?:^|[.!?] )(?:system prompt|system message|system override|assistant):",
        re.IGNORECASE,
    ),
}


def steering(*texts: str) -> str:
    """Return how texts try to steer a model that rates them, or an empty text.

    Letters in another width and invisible characters between letters hide nothing.
    """
    for text in texts:
        plain = unicodedata.normalize("NFKC", text)
        seen = "".join(c for c in plain if unicodedata.category(c) != "Cf")
        line = " ".join(seen.split())
        for what, sign in _SIGNS.items():
            if sign.search(line):
                return what
    return ""
