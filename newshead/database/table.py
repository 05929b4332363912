"""A table in ClickHouse's words: its columns, and the statement that creates it."""

from typing import Final, NamedTuple

from clickhouse_connect.driver.binding import quote_identifier

from newshead.database.kind import Kind

DEDUPLICATION_WINDOW: Final = 1000
# Without this setting a plain MergeTree ignores insert_deduplication_token, and
# a batch that clickhouse-connect resends by itself would be stored twice.
DEDUPLICATION: Final = (f"non_replicated_deduplication_window = {DEDUPLICATION_WINDOW}",)
# A week, in seconds and in inserts of one every 2 s: on replicas the plain window does nothing.
WEEK_S: Final = 7 * 86400
REPLICATED_DEDUPLICATION: Final = (
    f"replicated_deduplication_window = {WEEK_S // 2}",
    f"replicated_deduplication_window_seconds = {WEEK_S}",
)
# Without it rows expire while a stopped newshead could not move them: the engine drops them as
# soon as it opens the table.
KEEP_EXPIRED: Final = "max_number_of_merges_with_ttl_in_pool = 0"

# Where a few rows are read here and there: by default 64 KB are unpacked of each column for them.
SMALL_BLOCKS: Final = "min_compress_block_size = 4096"


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
    batches go into it, so it needs the settings of `deduplication` also where an earlier
    installation created it. `session`: it holds a session's rows, which outlive the time to live
    until they move to the history. `granularity`: the rows that are read at least; 0 for the
    engine's own, 8192.
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

    def settings(self, kind: Kind) -> tuple[str, ...]:
        """Return the settings that the table needs, also where an earlier installation created
        it."""
        return (
            *(deduplication(kind) if self.deduplicated else ()),
            *((KEEP_EXPIRED,) if self.session and self.ttl else ()),
            *(
                (f"index_granularity = {self.granularity}", SMALL_BLOCKS)
                if self.granularity
                else ()
            ),
        )

    def ddl(self, kind: Kind) -> str:
        """Return the statement that creates the table where it is missing."""
        parts = [column.definition for column in self.columns]
        parts += [
            f"INDEX {column}_index {column} TYPE {kind} GRANULARITY 1"
            for column, kind in self.indexes
        ]
        return (
            f"CREATE TABLE IF NOT EXISTS News.{self.name} ({', '.join(parts)}) {self.storage(kind)}"
        )

    def storage(self, kind: Kind) -> str:
        """Return what follows the columns in that statement."""
        # Without a path or a replica's name: the database gives each table its own.
        prefix = "Replicated" if kind is Kind.REPLICATED else ""
        clauses = {
            "PARTITION BY": self.partition,
            "ORDER BY": self.order,
            "TTL": self.ttl,
            "SETTINGS": ", ".join(self.settings(kind)),
        }
        return f"ENGINE = {prefix}{self.engine}" + "".join(
            f" {word} {clause}" for word, clause in clauses.items() if clause
        )


def deduplication(kind: Kind) -> tuple[str, ...]:
    """Return the settings with which a table stores a batch once, by its token."""
    return REPLICATED_DEDUPLICATION if kind.replicated else DEDUPLICATION
