"""The embedded engine behind ClickHouse's HTTP interface, for newshead's other processes.

The engine belongs to the process that opened it. What shows newshead to people runs in
processes of its own, so that it takes nothing from the monitor's loop; it reads the engine here
as it would a server, with clickhouse-connect. Readers come from this machine, know a password
that is made anew each time, and can change nothing.
"""

import base64
import functools
import hmac
import logging
import re
import secrets
import socket
import socketserver
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from clickhouse_connect.driver.binding import quote_identifier

from newshead.database.connection import Database
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
# URL parameters that belong to HTTP itself; the engine would refuse them as unknown settings.
_NOT_A_SETTING: Final = re.compile(
    "buffer_size|client_protocol_version|(de)?compress|database|password|param_.*|query(_id)?|"
    "quota_key|role|session_(check|id|timeout)|user|wait_end_of_query"
)


@asynccontextmanager
async def engine_served(settings: Settings) -> AsyncIterator[dict[str, str]]:
    """Serve the embedded engine while the context lasts.

    Gives the environment variables by which another process of newshead reads it.

    Raises
    ------
    DatabaseError, ConfigurationError
        The engine cannot be opened.
    """
    server = await off_loop(_EngineServer, settings)
    threading.Thread(target=server.serve_forever, name="engine server", daemon=True).start()
    try:
        yield {
            "CLICKHOUSE_HOST": LOOPBACK,
            "CLICKHOUSE_PORT": str(server.server_address[1]),
            "CLICKHOUSE_USER": USER,
            "CLICKHOUSE_PASSWORD": server.password,
            "CLICKHOUSE_SECURE": "false",
        }
    finally:
        await attempt(
            "to close the engine's server", off_loop(server.close), SERVER_CLOSE_TIMEOUT_S
        )


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


def settings_in(fields: Mapping[str, str]) -> dict[str, str]:
    """Return the engine's settings among a request's fields."""
    return {name: value for name, value in fields.items() if not _NOT_A_SETTING.fullmatch(name)}


def set_statement(name: str, value: str) -> str:
    """Return the statement that gives a setting a value."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"SET {quote_identifier(name)} = '{escaped}'"


def exception_code(text: str) -> str:
    """Return the code in the engine's words for an exception."""
    found = re.search(r"Code: (\d+)", text)
    return found[1] if found else UNKNOWN_EXCEPTION


def basic_authorization(user: str, password: str) -> str:
    """Return what HTTP Basic sends for a user and their password."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


class _EngineServer(socketserver.ThreadingTCPServer):
    """A thread and an engine connection for each reader's connection: nobody waits for another."""

    daemon_threads = True

    def __init__(self, settings: Settings) -> None:
        # It keeps the engine open, and other processes out.
        self._database = Database(settings)
        self._database.connect()
        # Not above: with a server the engine's library is not needed.
        import chdb

        # Resolved as clickhouse-connect does it: the engine compares folders by their names.
        self.open_engine: Callable[[], Any] = functools.partial(
            chdb.connect, str(settings.clickhouse_path.resolve())
        )
        self.password = secrets.token_urlsafe()
        self.authorization = basic_authorization(USER, self.password).encode()
        self.connections: set[socket.socket] = set()
        super().__init__((LOOPBACK, 0), _Handler)

    def close(self) -> None:
        """End all connections, then the engine's. Blocks for at most 3 s."""
        self.shutdown()
        self.server_close()
        for connection in tuple(self.connections):
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

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)
        self._engine: Any = None
        self._applied: dict[str, str] = {}

    def finish(self) -> None:
        try:
            super().finish()
        finally:
            if self._engine is not None:
                self._engine.close()
            self.server.connections.discard(self.connection)

    def do_POST(self) -> None:
        """Answers a query."""
        given = self.headers.get("Authorization", "").encode()
        if not hmac.compare_digest(given, self.server.authorization):
            self.close_connection = True
            self._send(HTTPStatus.FORBIDDEN, b"Code: 516. Wrong user or password.\n", code="516")
            return
        fields = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get_content_type() == "multipart/form-data":
            fields |= form_fields(str(self.headers.get_boundary()).encode(), body)
            body = b""
        try:
            answer = self._answer(fields.get("query", "") + body.decode(), fields)
        except RuntimeError as problem:
            text = str(problem)
            self._send(
                HTTPStatus.INTERNAL_SERVER_ERROR, f"{text}\n".encode(), code=exception_code(text)
            )
        else:
            self._send(HTTPStatus.OK, answer)

    def _answer(self, statement: str, fields: Mapping[str, str]) -> bytes:
        if self._engine is None:
            self._engine = self.server.open_engine()
            # 2 allows what 1 does not: that readers bound their queries by settings.
            self._engine.query("SET readonly = 2")
        settings = settings_in(fields)
        for name in self._applied.keys() - settings.keys():
            self._engine.query(f"SET {quote_identifier(name)} = DEFAULT")
        for name, value in settings.items() - self._applied.items():
            self._engine.query(set_statement(name, value))
        self._applied = settings
        answer: bytes = self._engine.query(
            statement, "TabSeparated", params=parameters_in(fields)
        ).bytes()
        return answer

    def _send(self, status: HTTPStatus, body: bytes, *, code: str = "") -> None:
        self.send_response(status)
        if code:
            self.send_header("X-ClickHouse-Exception-Code", code)
        else:
            # What has a format of its own is read by that.
            self.send_header("X-ClickHouse-Format", "TabSeparated")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Requests are not logged."""
