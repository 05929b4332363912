"""What a check found of a part, and how a terminal shows it. No I/O."""

import textwrap
from enum import Enum
from typing import Final, NamedTuple

WIDTH: Final = 80


class Verdict(Enum):
    """Whether a part works; `off` is one that is not configured or was not tried."""

    OK = "ok"
    OFF = "off"
    FAILED = "FAILED"


class Finding(NamedTuple):
    """What was found of a part: the facts where it works, else what to do."""

    part: str
    verdict: Verdict
    text: str


def ok(part: str, text: str) -> Finding:
    """Return that a part works."""
    return Finding(part, Verdict.OK, text)


def off(part: str, text: str) -> Finding:
    """Return that a part is not configured, or was not tried."""
    return Finding(part, Verdict.OFF, text)


def failed(part: str, text: str) -> Finding:
    """Return that a part does not work."""
    return Finding(part, Verdict.FAILED, text)


def shown(finding: Finding) -> str:
    """Return a finding as lines of at most WIDTH columns, unless a word is longer."""
    lead = f"{finding.verdict.value:<7} {finding.part:<12} "
    return textwrap.fill(
        " ".join(finding.text.split()),
        WIDTH,
        initial_indent=lead,
        subsequent_indent=" " * 21,
        break_long_words=False,
        break_on_hyphens=False,
    )
