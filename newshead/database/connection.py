"""The connection to ClickHouse, embedded or a server, and what can go wrong with it.

All but `until_database_works` blocks and belongs off the event loop.
"""

import asyncio
import errno
import functools
import ipaddress
import logging
import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import clickhouse_connect
from clickhouse_connect import common
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError
from clickhouse_connect.driver.httputil import default_pool_manager
from clickhouse_connect.driver.query import QueryResult

from newshead.database import folder
from newshead.database.folder import FolderLock
from newshead.database.kind import Kind, is_another
from newshead.loop import off_loop
from newshead.outage import Outage
from newshead.settings import ConfigurationError, Settings
from newshead.tape import ANSWERS

logger = logging.getLogger(__name__)
# They report what they raise as well.
for _name in ("clickhouse_connect", "urllib3"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)
# Settings that the server's administrator has fixed are left out instead of being an error.
common.set_setting("invalid_setting_action", "drop")

CONNECT_TIMEOUT_S: Final = 5
QUERY_TIMEOUT_S: Final = 30
RETRY_S: Final = 3.0
# A server that is silent for less is an error of its own.
SLOW_S: Final = 40.0
# The 60-second window compares the database's clock with this machine's.
MAX_CLOCK_DIFFERENCE_S: Final = 2.0
# On a full disk the embedded engine says that a table was created or altered, but leaves an
# empty file of it, and its folder never opens again.
MIN_FREE_BYTES: Final = 16 * 2**20
# A folder that cannot be written for these may be written later.
PASSING_ERRORS: Final = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE)
# The engine's codes for a table or a database that does not exist.
MISSING_TABLE_CODES: Final = (60, 81)
# Older servers lack what the statements use; between the two, newshead's driver promises nothing.
OLDEST_SERVER: Final = (24, 8)
OLDEST_TESTED_SERVER: Final = (25, 8)
# Its code for a right that a user lacks.
ACCESS_DENIED_CODE: Final = 497
# Its codes for settings that a user may not set, or not to that value.
REFUSED_SETTING_CODES: Final = (164, 452)
# Settings of single statements that make no difference to what comes of them.
OPTIONAL_SETTINGS: Final = frozenset(
    {
        "max_threads",
        "max_insert_threads",
        "max_execution_time",
        "max_partitions_per_insert_block",
        "optimize_aggregation_in_order",
    }
)
# Of the embedded engine's own: how often it looks after its memory and, table by table, whether
# there is something to merge when there was nothing. By default that is every 0.05 and every 0.1 to
# 1 s, which costs more than all else that an idle newshead does. What is inserted wakes it anyway.
ENGINE_OPTIONS: Final = {
    "memory_worker_period_ms": 1000,
    "background_processing_pool_thread_sleep_seconds_if_nothing_to_do": 10,
}
# Which time it is there, of what kind the database is (empty: there is none), and who answers.
CLOCK: Final = """
    SELECT now64(3),
        (SELECT any(engine) FROM system.databases WHERE name = 'News'),
        toString(serverUUID())"""
# A statement that creates or alters waits for the replicas that are up.
DDL_ON_REPLICAS: Final = {"distributed_ddl_output_mode": "none_only_active"}
# Its words for a right that a user lacks.
_LACKING_RIGHT: Final = re.compile(
    r"(\S+): Not enough privileges\..* the grant (.+? ON \S+?)\.?(?: \(|\s|$)"
)


class DatabaseError(Exception):
    """ClickHouse cannot be used now; the text says why and what to do."""


class CannotMoveError(DatabaseError):
    """The session cannot be moved to the history as things are; the tables are as they were."""


class DiskFullError(CannotMoveError):
    """Too little space is free for the embedded engine to change its tables unharmed."""


# Whatever goes wrong with the database.
DATABASE_ERRORS: Final = (ClickHouseError, DatabaseError)


class Database:
    """One connection to ClickHouse, embedded or a server.

    Methods block. A connection serves one caller at a time: whoever works in
    parallel has a connection of its own.

    Attributes
    ----------
    kind
        The database's kind, once `schema.find_kind` has asked.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.kind = Kind.ATOMIC
        self._client: Client | None = None
        self._lock: FolderLock | None = None

    @property
    def client(self) -> Client:
        """clickhouse-connect's client.

        Raises
        ------
        DatabaseError
            Not connected.
        """
        if self._client is None:
            raise DatabaseError("Not connected to ClickHouse.")
        return self._client

    def connect(self) -> None:
        """Open the connection.

        Raises
        ------
        DatabaseError
            The server does not answer or refuses, or another process has the embedded engine.
        ConfigurationError
            The embedded engine's folder cannot be written.
        """
        self.close()
        if self.settings.embedded:
            client = self._open_embedded(self.settings.clickhouse_path)
        else:
            client = self._open_server()
            self._check_version(client)
        for name in ("query", "insert", "command"):
            setattr(client, name, _database_call(getattr(client, name)))
        self._client = client

    def close(self) -> None:
        """Close the connection; without one it does nothing."""
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def rows(
        self, statement: str, *, settings: dict[str, Any] | None = None, **parameters: Any
    ) -> Sequence[Sequence[Any]]:
        """Return a query's rows, with times in UTC also where the embedded engine has another
        zone; `settings` are ClickHouse's, for this query."""
        found = self.client.query(
            statement, parameters=parameters, settings=settings, query_tz="UTC"
        ).result_rows
        if (answers := ANSWERS.get()) is not None:
            answers.append(found)
        return found

    def rows_if_there(
        self, statement: str, *, settings: dict[str, Any] | None = None, **parameters: Any
    ) -> Sequence[Sequence[Any]]:
        """Return a query's rows as `rows`; none where newshead has not made the table yet."""
        try:
            return self.rows(statement, settings=settings, **parameters)
        except ClickHouseError as problem:
            if is_missing_table(problem):
                return []
            raise

    def define(self, statement: str) -> None:
        """Run a statement that creates, alters, exchanges or drops tables (DDL).

        Raises
        ------
        DatabaseError, ClickHouseError
            It failed, or there is no room for it.
        """
        self.require_room()
        # A replica that is down gets to know of it when it is back.
        settings = DDL_ON_REPLICAS if self.kind is Kind.REPLICATED else None
        self.client.command(statement, settings=settings)

    def require_room(self) -> None:
        """Make sure that the embedded engine can change its tables unharmed.

        Raises
        ------
        DiskFullError
            Too little space is free on its disk.
        DatabaseError
            Its folder cannot be read.
        """
        if not self.settings.embedded:
            return
        path = self.settings.clickhouse_path
        try:
            free = shutil.disk_usage(path).free
        except OSError as problem:
            raise DatabaseError(
                f"The embedded database {path} cannot be used: {one_line(problem)}"
            ) from problem
        if free < MIN_FREE_BYTES:
            raise DiskFullError(
                f"The disk of the embedded database {path} is full: {free / 2**20:.1f} MiB are "
                f"free, and creating or altering tables takes {MIN_FREE_BYTES // 2**20} MiB. "
                "Free some space there."
            )

    def warn_of_clock_difference(self) -> float:
        """Return by how many seconds the database's clock is ahead of ours; warn over 2 s."""
        before = datetime.now(UTC)
        [(there, engine, server)] = self.rows(CLOCK)
        here = before + (datetime.now(UTC) - before) / 2
        self.learn(engine, server)
        ahead_s: float = (there - here).total_seconds()
        # The answer may have been given at any moment between question and arrival.
        if abs(ahead_s) - (here - before).total_seconds() > MAX_CLOCK_DIFFERENCE_S:
            logger.warning(
                "The database's clock is %.1f s %s this machine's: windows and alerts are off by "
                "as much. Synchronise both clocks (NTP).",
                abs(ahead_s),
                "ahead of" if ahead_s > 0 else "behind",
            )
        return ahead_s

    def learn(self, engine: str, server: str) -> None:
        """Take note of the database's engine, and of which server answers.

        Raises
        ------
        DatabaseError
            Not the one that answered before, and it does not share that one's rows.
        """
        self.kind = Kind.of(engine)
        where = f"{self.settings.clickhouse_host}:{self.settings.clickhouse_port}"
        known = _servers.setdefault(where, server)
        if not self.kind.replicated and is_another(known, server):
            raise DatabaseError(
                f"{where} leads to several ClickHouse servers that do not share their rows: "
                "ratings and alerts would be lost. Name one of them, or make the database "
                "Replicated, as docs/database.md says."
            )

    def _open_embedded(self, path: Path) -> Client:
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = FolderLock(path)
        except BlockingIOError as problem:
            raise DatabaseError(
                f"The embedded database {path} is in use by another newshead: "
                "stop that one, or set CLICKHOUSE_PATH to another folder."
            ) from problem
        except OSError as problem:
            if problem.errno in PASSING_ERRORS:
                raise DatabaseError(
                    f"The embedded database {path} cannot be opened: {one_line(problem)}"
                ) from problem
            raise ConfigurationError(
                f"The embedded database {path} cannot be written ({problem.strerror}): "
                "set CLICKHOUSE_PATH to a folder that you may write to."
            ) from problem
        try:
            folder.keep_inserts_in(path)
            folder.require_same_engine(path)
            # Absolute: the bare name :memory: would be no folder to the engine.
            client = clickhouse_connect.get_client(
                interface="chdb",
                path=str(path.resolve()),
                chdb_options=ENGINE_OPTIONS,
                tz_mode="aware",
                settings={"async_insert": 0},
            )
        except Exception as problem:
            self.close()
            raise DatabaseError(
                f"The embedded database {path} cannot be opened: "
                f"{folder.emptied_files(path) or one_line(problem)}"
            ) from problem
        folder.note_engine(path)
        return client

    def _open_server(self) -> Client:
        settings = self.settings
        where = f"{settings.clickhouse_host}:{settings.clickhouse_port}"
        try:
            return clickhouse_connect.get_client(
                host=settings.clickhouse_host,
                port=settings.clickhouse_port,
                username=settings.clickhouse_user,
                password=settings.clickhouse_password,
                secure=settings.clickhouse_secure,
                connect_timeout=CONNECT_TIMEOUT_S,
                send_receive_timeout=QUERY_TIMEOUT_S,
                autogenerate_session_id=False,
                tz_mode="aware",
                settings={"async_insert": 0},
                # Else the proxies of the environment (HTTP_PROXY) get the password.
                pool_mgr=default_pool_manager() if is_loopback(settings.clickhouse_host) else None,
            )
        except Exception as problem:
            advice = "Start it, or check CLICKHOUSE_HOST, _PORT, _USER, _PASSWORD and _SECURE."
            if _LACKING_RIGHT.search(str(problem)):
                advice = ""
            raise DatabaseError(
                f"ClickHouse at {where} cannot be used: {one_line(problem)} {advice}".rstrip()
            ) from problem

    def _check_version(self, client: Client) -> None:
        """Refuse a server that is too old; warn of one that newshead is not tested with."""
        found = re.match(r"(\d+)\.(\d+)", str(client.server_version))
        version = (int(found[1]), int(found[2])) if found else OLDEST_TESTED_SERVER
        where = f"{self.settings.clickhouse_host}:{self.settings.clickhouse_port}"
        if version < OLDEST_SERVER:
            told = client.server_version
            client.close()
            raise DatabaseError(
                f"ClickHouse at {where} is version {told}: update it to "
                f"{_dotted(OLDEST_TESTED_SERVER)} or later; newshead needs at least "
                f"{_dotted(OLDEST_SERVER)}."
            )
        if version < OLDEST_TESTED_SERVER and where not in _warned_of_version:
            _warned_of_version.add(where)
            logger.warning(
                "ClickHouse at %s is version %s: newshead is not tested with versions before %s.",
                where,
                client.server_version,
                _dotted(OLDEST_TESTED_SERVER),
            )


# Of each address the server that answered first.
_servers: dict[str, str] = {}
# Each process says it once.
_warned_of_version: set[str] = set()


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def is_missing_table(problem: Exception) -> bool:
    """Return whether the database failed for want of a table, or of itself."""
    return getattr(problem, "code", None) in MISSING_TABLE_CODES


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine, by its name or address alone."""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host.lower().rstrip(".") == "localhost"


def one_line(problem: Exception) -> str:
    """Return an exception's cause in one line, in the system's own words where it has some."""
    cause: BaseException | None = None if isinstance(problem, DatabaseError) else problem
    while cause is not None:
        if isinstance(cause, OSError):
            return f"{cause.strerror or cause}."
        cause = cause.__cause__ or cause.__context__
    text = str(problem).strip() or type(problem).__name__
    if lacking := _LACKING_RIGHT.search(text):
        return (
            f"The database's user {lacking[1]} lacks the right {lacking[2]}: "
            "grant it, as docs/database.md says."
        )
    return text.splitlines()[0][:300]


async def until_database_works(work: Callable[[], object], *, wait: bool) -> None:
    """Do blocking work with the database; with `wait`, until it succeeds.

    Raises
    ------
    DatabaseError, ClickHouseError
        It failed; not with `wait`.
    ConfigurationError
        It can never succeed.
    """
    outage = Outage()
    while True:
        waiting = asyncio.get_running_loop().call_later(
            SLOW_S,
            logger.warning,
            "The database has been at work for %.0f s, and newshead waits for it. If its disk "
            "stands still, mend that and start newshead again.",
            SLOW_S,
        )
        try:
            await off_loop(work)
        except DATABASE_ERRORS as problem:
            if not wait:
                raise
            if outage.begins(one_line(problem)):
                logger.error("%s Retrying every %.0f s.", outage.reason, RETRY_S)
            await asyncio.sleep(RETRY_S)
        else:
            return
        finally:
            waiting.cancel()


def _database_call(call: Callable[..., Any]) -> Callable[..., Any]:
    """Let whatever a call of clickhouse-connect's raises be one of DATABASE_ERRORS.

    Besides its own errors it raises those of files, sockets and answers cut short. Optional
    settings that the server refuses are left out.
    """

    @functools.wraps(call)
    def checked(*arguments: Any, **named: Any) -> Any:
        try:
            return checked_once(*arguments, **named)
        except ClickHouseError as problem:
            given = named.get("settings") or {}
            needed = {name: given[name] for name in given if name not in OPTIONAL_SETTINGS}
            if getattr(problem, "code", None) not in REFUSED_SETTING_CODES or needed == given:
                raise
            return checked_once(*arguments, **named | {"settings": needed})

    def checked_once(*arguments: Any, **named: Any) -> Any:
        try:
            result = call(*arguments, **named)
            if isinstance(result, QueryResult):
                # Otherwise rows are decoded, and may fail, where they are first used.
                result.result_rows  # noqa: B018
        except DATABASE_ERRORS:
            raise
        except Exception as problem:
            raise DatabaseError(f"{type(problem).__name__}: {one_line(problem)}") from problem
        return result

    return checked
