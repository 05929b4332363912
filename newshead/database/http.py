"""The embedded engine behind ClickHouse's HTTP interface, for newshead's other processes.

The engine belongs to the process that opened it. What shows newshead to people runs in
processes of its own, so that it takes nothing from the monitor's loop; it reads the engine here
as it would a server, with clickhouse-connect. Readers come from this machine, know a password
that is made anew each time, ask the statements that are handed in here and no others, and can
change nothing.
"""

import base64
import functools
import hmac
import json
import logging
import os
import re
import secrets
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from clickhouse_connect.driver.binding import quote_identifier

from newshead.database.connection import Database, one_line
from newshead.listening import IDLE_S, GuardedServer
from newshead.loop import attempt, off_loop
from newshead.settings import Settings

logger = logging.getLogger(__name__)

LOOPBACK: Final = "127.0.0.1"
USER: Final = "newshead"
# ClickHouse's own code for what has none.
UNKNOWN_EXCEPTION: Final = "1002"
# A query under way delays the end no longer than this.
CLOSE_TIMEOUT_S: Final = 2.0
# Nor does the engine, with that.
SERVER_CLOSE_TIMEOUT_S: Final = 3.0
# What a reader asks for is far shorter, with a thousand tickers too.
MAX_BODY: Final = 2**20
# What clickhouse-connect asks when it connects.
CLIENT_STATEMENTS: Final = (
    "SELECT version(), timezone()",
    "SELECT name, value, readonly FROM system.settings LIMIT 10000",
    "SELECT 1 AS check",
)
# In the engine's folder while it is served, readable by its owner alone: how to read it.
READERS_FILE: Final = "newshead-readers.json"
# What every connection of newshead's asks for: it may, where it stands so already.
CLIENT_SETTINGS: Final = {"async_insert": 0}
# The format that it asks for is added to each statement.
FORMAT: Final = "FORMAT Native"


@asynccontextmanager
async def engine_served(
    settings: Settings, statements: Collection[str], limits: Mapping[str, int]
) -> AsyncIterator[dict[str, str]]:
    """Serve the embedded engine while the context lasts.

    Gives the environment variables by which another process of newshead reads it.

    Parameters
    ----------
    statements
        The texts of all that may be asked; values are bound.
    limits
        The engine's settings that hold for each of them.

    Raises
    ------
    DatabaseError, ConfigurationError
        The engine cannot be opened.
    """
    server = await off_loop(_EngineServer, settings, statements, limits)
    threading.Thread(target=server.serve_forever, name="engine server", daemon=True).start()
    try:
        yield server.environment
    finally:
        await attempt(
            "to close the engine's server", off_loop(server.close), SERVER_CLOSE_TIMEOUT_S
        )


def readers_environment(settings: Settings) -> dict[str, str]:
    """Return the variables by which a command of newshead's reads the embedded engine while it is
    served by another process of the same user; none where it is not."""
    with suppress(OSError, ValueError):
        found: dict[str, str] = json.loads((settings.clickhouse_path / READERS_FILE).read_text())
        return found
    return {}


def form_fields(boundary: bytes, body: bytes) -> dict[str, str]:
    """Return the fields of a form: clickhouse-connect sends one where parameters are long."""
    fields = {}
    for part in body.split(b"--" + boundary)[1:-1]:
        head, _, value = part.partition(b"\r\n\r\n")
        if name := re.search(rb'name="([^"]*)"', head):
            fields[name[1].decode()] = value.removesuffix(b"\r\n").decode()
    return fields


def parameters_in(fields: Mapping[str, str]) -> dict[str, str]:
    """Return the values to be bound among a request's fields."""
    return {k.removeprefix("param_"): v for k, v in fields.items() if k.startswith("param_")}


def exception_code(text: str) -> str:
    """Return the code in the engine's words for an exception."""
    found = re.search(r"Code: (\d+)", text)
    return found[1] if found else UNKNOWN_EXCEPTION


def basic_authorization(user: str, password: str) -> str:
    """Return what HTTP Basic sends for a user and their password."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


class _EngineServer(GuardedServer):
    """A thread and an engine connection for each reader's connection: nobody waits for another."""

    name = "engine's server"

    def __init__(
        self, settings: Settings, statements: Collection[str], limits: Mapping[str, int]
    ) -> None:
        # It keeps the engine open, and other processes out.
        self._database = Database(settings)
        self._database.connect()
        # Not above: with a server the engine's library is not needed.
        import chdb

        # Resolved as clickhouse-connect does it: the engine compares folders by their names.
        self._connect: Callable[[], Any] = functools.partial(
            chdb.connect, str(settings.clickhouse_path.resolve())
        )
        self.password = secrets.token_urlsafe()
        self.authorization = basic_authorization(USER, self.password).encode()
        self.statements = {text.strip() for text in (*CLIENT_STATEMENTS, *statements)}
        self._limits = {**CLIENT_SETTINGS, **limits}
        super().__init__((LOOPBACK, 0), _Handler)
        self.environment = {
            "CLICKHOUSE_HOST": LOOPBACK,
            "CLICKHOUSE_PORT": str(self.server_address[1]),
            "CLICKHOUSE_USER": USER,
            "CLICKHOUSE_PASSWORD": self.password,
            "CLICKHOUSE_SECURE": "false",
        }
        self._readers = settings.clickhouse_path / READERS_FILE
        try:
            self._readers.unlink(missing_ok=True)
            opened = os.open(self._readers, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            with os.fdopen(opened, "w") as file:
                json.dump(self.environment, file)
        except OSError as problem:
            logger.warning("%s cannot be written: %s", self._readers, one_line(problem))

    def open_engine(self) -> Any:
        """Return a connection to the engine that can change nothing, nor its own limits."""
        engine = self._connect()
        for name, value in self._limits.items():
            engine.query(f"SET {quote_identifier(name)} = {value}")
        engine.query("SET readonly = 1")
        return engine

    def close(self) -> None:
        """End all connections, then the engine's. Blocks for at most 3 s."""
        with suppress(OSError):
            self._readers.unlink(missing_ok=True)
        self.shutdown()
        self.server_close()
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        until = time.monotonic() + CLOSE_TIMEOUT_S
        while self.connections and time.monotonic() < until:
            time.sleep(0.01)
        self._database.close()

    def handle_error(self, *_: object) -> None:
        """Note that a request broke, most likely since its reader has gone."""
        logger.debug("A request to the engine broke: %r", sys.exception())


class _Handler(BaseHTTPRequestHandler):
    """One reader's connection."""

    server: _EngineServer
    protocol_version = "HTTP/1.1"
    # Head and body leave in one packet, else each answer waits for a delayed acknowledgement.
    wbufsize = -1
    # Nor does anybody hold a thread by not reading their answer.
    timeout = IDLE_S

    def setup(self) -> None:
        super().setup()
        self._engine: Any = None

    def finish(self) -> None:
        try:
            super().finish()
        finally:
            if self._engine is not None:
                self._engine.close()

    def do_POST(self) -> None:
        """Answers a query."""
        given = self.headers.get("Authorization", "").encode()
        if not hmac.compare_digest(given, self.server.authorization):
            self.server.log_misuse("a request without the right password")
            self.close_connection = True
            self._refuse(HTTPStatus.FORBIDDEN, "516", "Wrong user or password.")
            return
        length = self.headers.get("Content-Length", "0")
        if not (length.isascii() and length.isdigit() and int(length) <= MAX_BODY):
            self.server.log_misuse("a request without an end or beyond its size")
            self.close_connection = True
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "309", "Too large.")
            return
        fields = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        body = self.rfile.read(int(length))
        if self.headers.get_content_type() == "multipart/form-data":
            fields |= form_fields(str(self.headers.get_boundary()).encode(), body)
            body = b""
        self.server.answering(self.connection)
        self._query((fields.get("query", "") + body.decode()).strip(), parameters_in(fields))
        self.server.answered(self.connection)

    def _query(self, statement: str, parameters: Mapping[str, str]) -> None:
        if statement.removesuffix(FORMAT).strip() not in self.server.statements:
            self.server.log_misuse("a statement that is none of newshead's", f", {statement!a:.80}")
            self._refuse(HTTPStatus.FORBIDDEN, "497", "It is none of newshead's statements.")
            return
        try:
            if self._engine is None:
                self._engine = self.server.open_engine()
            answer = self._engine.query(statement, "TabSeparated", params=parameters).bytes()
        except RuntimeError as problem:
            text = str(problem)
            self._send(
                HTTPStatus.INTERNAL_SERVER_ERROR, f"{text}\n".encode(), code=exception_code(text)
            )
        else:
            self._send(HTTPStatus.OK, answer)

    def _refuse(self, status: HTTPStatus, code: str, why: str) -> None:
        self._send(status, f"Code: {code}. DB::Exception: {why}\n".encode(), code=code)

    def _send(self, status: HTTPStatus, body: bytes, *, code: str = "") -> None:
        self.send_response(status)
        if code:
            self.send_header("X-ClickHouse-Exception-Code", code)
        else:
            # What has a format of its own is read by that.
            self.send_header("X-ClickHouse-Format", "TabSeparated")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Requests are not logged."""
