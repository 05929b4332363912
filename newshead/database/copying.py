"""Rows copied from one table into another: in slices of bounded memory, each row once."""

import logging
import re
import time
import uuid
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from clickhouse_connect.driver.binding import quote_identifier

from newshead.database.connection import Database
from newshead.database.schema import COLUMNS
from newshead.database.slices import Slice, cut

logger = logging.getLogger(__name__)

# Texts that are put together from parts hold constants and names of columns and tables only
# (S608); values are always bound.

# The rows, by their hash, that a slice has more often than the destination: equal rows are rows
# too, and texts need not be held in memory.
LACKING: Final = """
    SELECT row_hash, sum(copies) AS lacking
    FROM (
        SELECT sipHash128(tuple(%(values)s)) AS row_hash, 1 AS copies
        FROM News.%(source)s
        WHERE %(slice)s
        UNION ALL
        SELECT sipHash128(tuple(%(names)s)), -1
        FROM News.%(destination)s
        WHERE timestamp >= (SELECT minOrNull(timestamp) FROM News.%(source)s WHERE %(slice)s)
            AND timestamp <= (SELECT maxOrNull(timestamp) FROM News.%(source)s WHERE %(slice)s)
            AND %(key)s
    )
    GROUP BY row_hash
    HAVING lacking > 0"""

LACKING_ROWS: Final = """
    SELECT %(aliases)s
    FROM (
        SELECT *, row_number() OVER (PARTITION BY row_hash ORDER BY place) AS row_copy
        FROM (
            SELECT %(aliased)s, sipHash128(tuple(%(values)s)) AS row_hash,
                row_number() OVER (ORDER BY %(order)s) AS place
            FROM News.%(source)s
            WHERE %(slice)s
        ) AS hashed
        INNER JOIN (%(lacking)s) AS short USING row_hash
    )
    WHERE row_copy <= lacking
    ORDER BY place"""


# Values of the destination's types, in the order of insertion.
ROWS: Final = "SELECT %(values)s FROM News.%(source)s WHERE %(slice)s ORDER BY %(order)s"


class Source(NamedTuple):
    """A table whose rows are copied. Nobody writes to it meanwhile.

    `token` names its content for good; `replacing` says that of rows with the same key only the
    newest counts.
    """

    name: str
    token: str
    replacing: bool

    @property
    def rows(self) -> str:
        """The table in a query's FROM."""
        return f"{self.name} FINAL" if self.replacing else self.name


class Copy:
    """A copy of those rows of a table that meet a condition, slice by slice.

    The columns are those of the source; the destination has them too, and maybe others.
    """

    def __init__(
        self, database: Database, source: Source, destination: str, condition: str = "1"
    ) -> None:
        self._database = database
        self._source = source
        self._destination = destination
        self._condition = condition
        self._types = {str(n): str(t) for n, t in database.rows(COLUMNS, table=source.name)}
        self._there = {str(n): str(t) for n, t in database.rows(COLUMNS, table=destination)}
        values = {n: _converted(n, t, self._there[n]) for n, t in self._types.items()}
        names = {name: quote_identifier(name) for name in self._types}
        self._parts = {
            "names": ", ".join(names.values()),
            "values": ", ".join(values.values()),
            # Not the columns' own names, which conditions would find before the columns.
            "aliased": ", ".join(f"{v} AS value_{n}" for n, v in enumerate(values.values())),
            "aliases": ", ".join(f"value_{n}" for n in range(len(values))),
            "source": source.rows,
            "destination": destination,
            # The order of insertion; versions of a row have none that would last.
            "order": f"ticker, timestamp, {', '.join(names.values())}"
            if source.replacing
            else "ticker, timestamp, _block_number, _part_offset",
        }

    def run(self) -> None:
        """Copy all rows. For a source whose copying has never begun."""
        for number, rows in enumerate(self._slices()):
            self._insert(ROWS % self._of(rows), rows, f"{self._token} {number}")

    def resume(self, go_on: Callable[[float], bool] = lambda _: True) -> int | None:
        """Copy what the destination lacks of the rows; return the number of those.

        The engine notes a block's token a moment before it has the block: killed in between, it
        takes a block that is not there for one that is. So rows are compared.

        Parameters
        ----------
        go_on
            Called after each slice with the seconds that it took. False ends it, with None.
        """
        added = 0
        for number, rows in enumerate(self._slices()):
            began = time.monotonic()
            lacking = self._lacking(rows)
            added += lacking
            # First with the slice's own token: a statement that was given up may still arrive.
            for token in (f"{self._token} {number}", str(uuid.uuid4())):
                if lacking:
                    self._insert(LACKING_ROWS % self._of(rows), rows, token)
                    lacking = self._lacking(rows)
            if not go_on(time.monotonic() - began):
                return None
        return added

    @property
    def _token(self) -> str:
        return f"{self._source.token} {self._destination}"

    def _slices(self) -> list[Slice]:
        return cut(self._database, self._source.name, self._types)

    def _of(self, rows: Slice) -> dict[str, str]:
        key = rows.key
        if any(self._types[name] != self._there[name] for name in self._types):
            # Keys of other types may have another order.
            key = "1"
        parts = self._parts | {"slice": f"{rows.condition} AND {self._condition}", "key": key}
        return parts | {"lacking": LACKING % parts}

    def _lacking(self, rows: Slice) -> int:
        statement = f"SELECT sum(lacking) FROM ({LACKING % self._of(rows)})"  # noqa: S608
        [(lacking,)] = self._database.client.query(
            statement, parameters=rows.values, settings={"max_threads": 1}
        ).result_rows
        return int(lacking)

    def _insert(self, statement: str, rows: Slice, token: str) -> None:
        # One thread and one order: a second attempt makes the very same block.
        settings: dict[str, Any] = {
            "insert_deduplication_token": token,
            "max_threads": 1,
            "max_insert_threads": 1,
            "max_partitions_per_insert_block": 0,
        }
        self._database.client.command(
            f"INSERT INTO News.{self._destination} ({self._parts['names']}) {statement}",
            parameters=rows.values,
            settings=settings,
        )


def _converted(name: str, kind: str, there: str) -> str:
    """Return a column's value as a column of type `there` has it."""
    column = quote_identifier(name)
    if kind == there:
        return column
    if kind.startswith(("Nullable(", "LowCardinality(Nullable(")) and "Nullable(" not in there:
        base = _text(re.sub(r"^LowCardinality\((.*)\)$", r"\1", there))
        return f"ifNull(CAST({column}, 'Nullable({base})'), defaultValueOfTypeName('{base}'))"
    return f"CAST({column}, '{_text(there)}')"


def _text(kind: str) -> str:
    return kind.replace("\\", "\\\\").replace("'", "\\'")
