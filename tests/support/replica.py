"""Statements for one of several replicas, rewritten for the plain engine that stands in for it.

It stands for one replica of a database of the engine Replicated, or for a server of ClickHouse
Cloud, whose databases are Shared, as newshead's statements meet it: the database and its tables
name these engines, and batches are deduplicated as the tables' settings say. A part that a test has
detached is one that this replica has not fetched yet: it comes with `SYSTEM SYNC REPLICA`. There is
no other replica and no Keeper: what these do, and how long they take, no test shows.
"""

import re
from typing import Final

_SYNC_TABLE: Final = re.compile(rb"SYSTEM SYNC REPLICA (\S+) LIGHTWEIGHT")
_ENGINE: Final = re.compile(rb"ENGINE = Replicated(\w*MergeTree)")
_DEDUPLICATION: Final = re.compile(rb"\breplicated_deduplication_window\b")

_DATABASES: Final = b"""(
    SELECT * REPLACE (if(name = 'News', '%(kind)b', engine) AS engine) FROM system.databases)"""
_TABLES: Final = b"""(
    SELECT * REPLACE (
        replaceRegexpOne(engine, '^(\\w*MergeTree)$', '%(kind)b\\1') AS engine,
        replaceAll(
            replaceRegexpOne(engine_full, '^(\\w*MergeTree)', '%(kind)b\\1'),
            'non_replicated_deduplication_window', 'replicated_deduplication_window'
        ) AS engine_full)
    FROM system.tables)"""


def as_plain(sql: bytes, kind: str) -> bytes:
    """Return what the plain engine takes for a statement in a database of the engine `kind`."""
    if sql.startswith(b"SYSTEM SYNC DATABASE REPLICA "):
        return b"SELECT 1 LIMIT 0"
    sql = _SYNC_TABLE.sub(rb"ALTER TABLE \1 ATTACH PARTITION ALL", sql)
    sql = _ENGINE.sub(rb"ENGINE = \1", sql)
    sql = _DEDUPLICATION.sub(b"non_replicated_deduplication_window", sql)
    for table, named in ((b"system.databases", _DATABASES), (b"system.tables", _TABLES)):
        sql = sql.replace(table, named % {b"kind": kind.encode()})
    return sql
