"""What was recorded beside what is stored of it."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from newshead.core.slots import SLOT_S

# Rows of so long before a cut may be stored although the recording does not tell of them.
CUT_S: Final = 1.0


class Span(NamedTuple):
    """A recording's time (Unix seconds), and the rows of one kind that it tells of.

    Rows begin with their ticker and their time. `stored` are those of which ClickHouse said that
    it has them; `unsure` are the others, which waited at the end or were given up.
    """

    began_s: float
    ended_s: float
    cut: bool
    stored: Sequence[tuple[Any, ...]]
    unsure: Sequence[tuple[Any, ...]]


class Comparison(NamedTuple):
    """What differs; `left_out` counts the rows of which nothing can be said."""

    same: int
    missing: Sequence[tuple[Any, ...]]
    unknown: Sequence[tuple[Any, ...]]
    left_out: int

    def lines(self, what: str) -> list[str]:
        """Return what differs, and the counts."""
        found = [f"Not in ClickHouse: {_shown(row)}" for row in self.missing]
        found += [f"Not in the recording: {_shown(row)}" for row in self.unknown]
        left_out = f", {self.left_out} left out at the end of a recording" if self.left_out else ""
        return [*found, f"{self.same} {what} are the same{left_out}."]


def compare(there: Iterable[Sequence[Any]], spans: Sequence[Span]) -> Comparison:
    """Return how the rows in the database differ from those that the recordings tell of."""
    recorded = Counter(row for span in spans for row in span.stored)
    unsure = Counter(row for span in spans for row in span.unsure)
    stored = Counter(map(tuple, there))
    missing = recorded - stored
    unknown = stored - recorded - unsure
    left_out = sum(unsure.values())
    for row in list(unknown):
        at_s = row[1]
        within = [span for span in spans if span.began_s <= at_s <= span.ended_s]
        if not within:
            # Another process's: before, between or after the recordings.
            del unknown[row]
        elif all(span.cut and at_s >= span.ended_s - CUT_S - SLOT_S for span in within):
            left_out += unknown.pop(row)
    return Comparison(
        (recorded & stored).total(),
        sorted(missing.elements()),
        sorted(unknown.elements()),
        left_out,
    )


def _shown(row: Sequence[Any]) -> str:
    return " ".join(map(str, row))
