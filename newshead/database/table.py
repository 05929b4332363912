"""A table in ClickHouse's words: its columns, and the statement that creates it."""

from typing import Final, NamedTuple

from clickhouse_connect.driver.binding import quote_identifier

DEDUPLICATION_WINDOW: Final = 1000
# Without this setting a plain MergeTree ignores insert_deduplication_token, and
# a batch that clickhouse-connect resends by itself would be stored twice.
DEDUPLICATION: Final = f"non_replicated_deduplication_window = {DEDUPLICATION_WINDOW}"
# Without it rows expire while a stopped newshead could not move them: the engine drops them as
# soon as it opens the table.
KEEP_EXPIRED: Final = "max_number_of_merges_with_ttl_in_pool = 0"


class Column(NamedTuple):
    """A column, with its type and the expression of its default, if it has one."""

    name: str
    type: str
    default: str = ""

    @property
    def definition(self) -> str:
        """The column in the statement that creates its table."""
        default = f" DEFAULT {self.default}" if self.default else ""
        return f"{quote_identifier(self.name)} {self.type}{default}"


class Table(NamedTuple):
    """A table of newshead's, in ClickHouse's words.

    `indexes` holds columns with the types of their indexes. `deduplicated`: newshead's own
    batches go into it, so it needs the setting DEDUPLICATION also where an earlier installation
    created it. `session`: it holds a session's rows, which outlive the time to live until they move
    to the history. `granularity`: the rows that are read at least; 0 for the engine's own, 8192.
    """

    name: str
    columns: tuple[Column, ...]
    order: str
    engine: str = "MergeTree"
    partition: str = ""
    ttl: str = ""
    indexes: tuple[tuple[str, str], ...] = ()
    deduplicated: bool = True
    session: bool = False
    granularity: int = 0

    @property
    def settings(self) -> tuple[str, ...]:
        """The settings that the table needs, also where an earlier installation created it."""
        needed = {
            DEDUPLICATION: self.deduplicated,
            KEEP_EXPIRED: self.session and self.ttl,
            f"index_granularity = {self.granularity}": self.granularity,
        }
        return tuple(setting for setting, needs in needed.items() if needs)

    @property
    def ddl(self) -> str:
        """The statement that creates the table where it is missing."""
        parts = [column.definition for column in self.columns]
        parts += [
            f"INDEX {column}_index {column} TYPE {kind} GRANULARITY 1"
            for column, kind in self.indexes
        ]
        clauses = {
            "PARTITION BY": self.partition,
            "ORDER BY": self.order,
            "TTL": self.ttl,
            "SETTINGS": ", ".join(self.settings),
        }
        return (
            f"CREATE TABLE IF NOT EXISTS News.{self.name} ({', '.join(parts)}) "
            f"ENGINE = {self.engine}"
            + "".join(f" {word} {clause}" for word, clause in clauses.items() if clause)
        )
