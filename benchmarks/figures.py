"""The form of a benchmark's figures, and the table they are printed in.

Each script of this folder has a function `measure(quick: bool) -> list[Figure]`;
quick takes seconds and shows only that the script works.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

HEADER: Final = ("measure", "figure", "reference", "ratio", "target", "")


class Target(NamedTuple):
    """A limit that a figure is to keep: at most it, unless `at_least`.

    `of_ratio`: the limit is one of the figure's ratio to its reference.
    """

    limit: float
    at_least: bool = False
    of_ratio: bool = False


class Figure(NamedTuple):
    """One measured figure.

    `reference` names what was measured beside it in the same run, and
    `reference_value` is what came of that, in the same unit.
    """

    name: str
    value: float
    unit: str
    reference: str = ""
    reference_value: float | None = None
    target: Target | None = None

    @property
    def ratio(self) -> float | None:
        """The figure divided by its reference; None without one."""
        return self.value / self.reference_value if self.reference_value else None

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        measured = self.ratio if self.target and self.target.of_ratio else self.value
        if self.target is None or measured is None:
            return None
        limit = self.target.limit
        return measured >= limit if self.target.at_least else measured <= limit


def table(figures: Sequence[Figure]) -> str:
    """The figures as a Markdown table, one row each."""
    rows = [HEADER, *(_cells(figure) for figure in figures)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _cells(figure: Figure) -> tuple[str, ...]:
    reference = ""
    if figure.reference_value is not None:
        reference = f"{_number(figure.reference_value)} {figure.unit} ({figure.reference})"
    return (
        figure.name,
        f"{_number(figure.value)} {figure.unit}",
        reference,
        "" if figure.ratio is None else f"{_number(figure.ratio)} ×",
        "" if figure.target is None else _limit(figure.target, figure.unit),
        {True: "met", False: "MISSED", None: ""}[figure.met],
    )


def _limit(target: Target, unit: str) -> str:
    sign = "≥" if target.at_least else "≤"
    return f"{sign} {_number(target.limit)} {'×' if target.of_ratio else unit}"


def _number(value: float) -> str:
    """Two or three digits that count, and no more zeros than that takes."""
    if abs(value) < 1:
        return f"{value:.2g}"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
