"""A table cut into slices, each small enough to be copied in bounded memory."""

import re
from typing import Any, Final, NamedTuple

from clickhouse_connect.driver.binding import quote_identifier

from newshead.database.connection import Database

# A slice has at most about so many rows, and so many bytes as they are in memory.
SLICE_ROWS: Final = 2**19
SLICE_BYTES: Final = 2**25

# Sorting keys of other types are not compared with texts.
_ORDERED: Final = re.compile(r"String|U?Int\d+|Date(32)?|DateTime(\(.*\))?|DateTime64\(.*\)")

SORTING: Final = """
    SELECT sorting_key FROM system.tables WHERE database = 'News' AND name = {table:String}"""

SIZE: Final = """
    SELECT sum(rows), sum(data_uncompressed_bytes)
    FROM system.parts
    WHERE database = 'News' AND table = {table:String} AND active"""

# The last key of each slice, in order, and the number of its rows. Constants of this module and
# names of columns and tables only are put in (S608).
CUTS: Final = """
    SELECT %(text)s, sum(slice_rows)
    FROM (
        SELECT slice_key, slice_rows,
            sum(slice_rows) OVER (ORDER BY slice_key ROWS UNBOUNDED PRECEDING) AS slice_up_to
        FROM (
            SELECT %(key)s AS slice_key, count() AS slice_rows
            FROM News.%(table)s
            GROUP BY slice_key
        )
    )
    GROUP BY intDiv(slice_up_to - 1, {rows:UInt64})
    ORDER BY max(slice_key)"""


class Slice(NamedTuple):
    """A condition that a part of a table's rows meets, with the values that are bound in it.

    `key` is what of it concerns the first column of the sorting key alone.
    """

    condition: str
    key: str
    values: dict[str, Any]


def cut(database: Database, table: str, types: dict[str, str]) -> list[Slice]:
    """Return slices that have each row of a table once, in the order of its sorting key.

    Parameters
    ----------
    types
        The table's columns with their types.
    """
    [(rows, size)] = database.rows(SIZE, table=table)
    # A power of two: the same again after parts were merged, which changes sizes a little.
    limit = SLICE_ROWS
    while rows and limit > 1 and limit * size / rows > SLICE_BYTES:
        limit //= 2
    [(sorting,)] = database.rows(SORTING, table=table)
    key = sorting.split(",")[0].strip().strip("`")
    kind = re.sub(r"^LowCardinality\((.*)\)$", r"\1", types.get(key, ""))
    if not _ORDERED.fullmatch(kind):
        return [Slice(c, "1", {}) for c in _parts(types, rows, limit)]
    name = quote_identifier(key)
    # As text in UTC, so that no time zone's change of the clocks puts two keys in another order.
    utc = kind.startswith("DateTime")
    text = "toString(max(slice_key), 'UTC')" if utc else "toString(max(slice_key))"
    bound = re.sub(r"^(DateTime)(\(.*\))?$|^DateTime64\((\d).*\)$", _in_utc, kind)
    parts = {"key": name, "table": table, "text": text}
    cuts = database.rows(CUTS % parts, rows=limit)
    found: list[Slice] = []
    lower: dict[str, Any] = {}
    for number, (last, count) in enumerate(cuts):
        conditions = [f"{name} > {{lower:{bound}}}"] if lower else []
        values = dict(lower)
        if number + 1 < len(cuts):
            conditions.append(f"{name} <= {{upper:{bound}}}")
            values["upper"] = last
        in_key = " AND ".join(conditions) or "1"
        found += [Slice(f"{in_key} AND {c}", in_key, values) for c in _parts(types, count, limit)]
        lower = {"lower": last}
    return found


def _in_utc(found: "re.Match[str]") -> str:
    return f"DateTime64({found[3]}, 'UTC')" if found[3] else "DateTime('UTC')"


def _parts(types: dict[str, str], rows: int, limit: int) -> list[str]:
    """Return conditions that divide so many rows, however alike their keys are."""
    count = -(-rows // (2 * limit))
    names = ", ".join(map(quote_identifier, types))
    return [f"sipHash64({names}) % {count} = {n}" for n in range(count)] if count > 1 else ["1"]
