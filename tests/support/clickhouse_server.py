"""A thin ClickHouse HTTP server for tests: the embedded chDB engine behind the HTTP protocol.

Tests use `ClickHouseServer`. By hand, in the repository's folder:
``PYTHONPATH=. python tests/support/clickhouse_server.py --path DIR --port 8123``.

It takes what clickhouse-connect sends and answers uncompressed, in protocol version 0, in UTC.
Each request has an engine connection of its own: requests do not wait for one another, and
sessions are not kept. Unlike a real server, it takes URLs up to 64 KiB (real: 1 MiB), lets a query
run on when its client leaves, and never inserts asynchronously: ``async_insert`` has no effect in
chDB. `ClickHouseServer.settings` tells whether it was sent.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gzip
import http.client
import io
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any, Final, Self
from urllib.parse import parse_qsl, urlencode
from xml.sax.saxutils import escape

from clickhouse_connect.driver.binding import quote_identifier
from replica import as_plain

from newshead.database.connection import ENGINE_OPTIONS
from newshead.database.http import (
    basic_authorization,
    exception_code,
    form_fields,
    parameters_in,
)

START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 10.0
IDLE_TIMEOUT_S: Final = 10.0
CONTROL_TIMEOUT_S: Final = 2 * IDLE_TIMEOUT_S
# What the server's process needs to find newshead's modules.
PYTHONPATH: Final = {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
FAULT_KINDS: Final = frozenset({"refuse", "hang", "error", "drop_answer", "slow"})

_INSERT_WITH_DATA: Final = re.compile(rb"\s*(INSERT\s+INTO\s.+?)\s+FORMAT\s+(\w+) *\n", re.I | re.S)
_TRAILING_FORMAT: Final = re.compile(rb"\sFORMAT\s+(\w+)[\s;]*$", re.I)
# URL parameters that belong to HTTP itself; the engine would refuse them as unknown settings.
_NOT_A_SETTING: Final = re.compile(
    "buffer_size|client_protocol_version|(de)?compress|database|password|param_.*|query(_id)?|"
    "quota_key|role|session_(check|id|timeout)|user|wait_end_of_query"
)
# As the real server maps them. 503 matters most: clickhouse-connect tries such requests again.
_STATUS_OF_CODE: Final = {
    **dict.fromkeys((6, 27, 36, 38, 41, 44, 53, 62, 72, 117), 400),
    **dict.fromkeys((192, 193, 497, 516), 403),
    **dict.fromkeys((46, 47, 50, 60, 63, 73, 81, 115), 404),
    **dict.fromkeys((76, 209, 439), 503),
}


class ClickHouseServer:
    """The server in a process of its own, which ends with this process at the latest.

    Parameters
    ----------
    path
        Folder of the data; created if missing. Data outlive stop() and kill().
    user, password
        What clients have to give; anything else is answered with code 516.
    port
        0 takes a free one at the first start() and keeps it over later ones.
    rights
        GRANT statements that say what clients may do; None: everything.
    profile
        Settings of the clients, and constraints on them, as in the engine's own configuration.
    version
        What the server says of itself; empty for the truth.
    server_id
        What `serverUUID()` says; empty for the truth, which is zero in each embedded engine.
    kind
        Replicated or Shared: the server stands for one of several, as `replica` says.
    """

    def __init__(
        self,
        path: Path,
        *,
        user: str = "default",
        password: str = "",
        port: int = 0,
        rights: Sequence[str] | None = None,
        profile: str = "",
        version: str = "",
        server_id: str = "",
        kind: str = "",
    ) -> None:
        self.host = "127.0.0.1"
        self.port = port
        self._arguments = ["--path", str(path), "--user", user, "--password", password]
        self._arguments += ["--version", version, "--server-id", server_id, "--kind", kind]
        if rights is not None or profile:
            config = path.with_name(f"{path.name}-{uuid.uuid4()}.xml")
            config.write_text(_configuration(config, rights, profile))
            self._arguments += ["--config", str(config)]
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Return once requests are accepted. Faults and the list of statements are empty.

        Raises RuntimeError if the server is running already or does not come up.
        """
        if self._process is not None:
            raise RuntimeError("the ClickHouse server is running already")
        self._process = process = subprocess.Popen(
            [sys.executable, __file__, "--with-parent", "--port", str(self.port), *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"TZ": "UTC"} | PYTHONPATH,
        )
        assert process.stdout is not None
        line = process.stdout.readline() if _readable(process.stdout, START_TIMEOUT_S) else ""
        if not line.startswith("listening on "):
            self.kill()
            raise RuntimeError("the ClickHouse server did not start; its reason is on stderr")
        self.port = int(line.split()[-1])

    def stop(self) -> None:
        """End the server with SIGTERM: open requests lose their connection."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the server with SIGKILL, as a crash would."""
        self._end(signal.SIGKILL)

    def fault(
        self,
        kind: str,
        *,
        match: str = "",
        times: int | None = None,
        seconds: float = 0.0,
        code: int = 0,
        text: str = "",
    ) -> None:
        """Treat the next `times` requests (None: all) whose SQL contains `match` as `kind` says.

        "refuse": close the connection without an answer, do nothing.
        "hang": wait for clear_faults(), then go on as usual; if the client leaves, do nothing.
        "error": answer with exception `code` and `text`, do nothing.
        "drop_answer": do everything, then close the connection without an answer.
        "slow": wait `seconds`, then go on as usual, even if the client has left.

        Faults add up; the oldest that fits a request applies. When a connection closes,
        clickhouse-connect tries again by itself: query() twice, insert() and a reading command()
        once, other commands never. Its caller notices only if `times` is higher than that.
        """
        if kind not in FAULT_KINDS:
            raise ValueError(f"kind={kind!r} is none of {sorted(FAULT_KINDS)}")
        fault = _Fault(kind, match, times, seconds, code, text)
        self._control("POST", "/fault", dataclasses.asdict(fault))

    def clear_faults(self) -> None:
        """Forget all faults. Requests that hang go on as usual."""
        self._control("POST", "/fault", {"kind": "none"})

    def wait_until_idle(self) -> None:
        """Wait until no statement is under way, whether its client waits for it or has left.

        Raises TimeoutError if that takes too long.
        """
        if not self._control("GET", "/idle"):
            raise TimeoutError(f"the ClickHouse server was not idle within {IDLE_TIMEOUT_S:.0f} s")

    def statements(self) -> list[str]:
        """SQL of all requests since start(), without data: faulty ones and resent ones too."""
        return [request["sql"] for request in self._control("GET", "/requests")]

    def settings(self) -> list[dict[str, str]]:
        """Settings sent along with each of statements(), in the same order."""
        return [request["settings"] for request in self._control("GET", "/requests")]

    def _control(self, method: str, path: str, body: object = None) -> Any:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=CONTROL_TIMEOUT_S)
        with contextlib.closing(connection):
            connection.request(method, path, json.dumps(body))
            return json.load(connection.getresponse())

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.communicate(timeout=STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()  # Only after its end is the data folder free.


@dataclasses.dataclass
class _Fault:
    kind: str
    match: str = ""
    times: int | None = None
    seconds: float = 0.0
    code: int = 0
    text: str = ""


@dataclasses.dataclass
class _Answer:
    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = dataclasses.field(default_factory=dict)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, arguments: argparse.Namespace) -> None:
        # Here and not above: tests that import ClickHouseServer shall not load the engine.
        import chdb

        self._chdb: Any = chdb
        self._path: Path = arguments.path
        self._path.mkdir(parents=True, exist_ok=True)
        # Of many that stand idle none may take much of the processor.
        options: dict[str, object] = dict(ENGINE_OPTIONS)
        if arguments.config:
            options["config-file"] = arguments.config
        self._source = f"{self._path}?{urlencode(options)}"
        self._first = self._chdb.connect(self._source)  # The engine ends with its last connection.
        row = self._first.query("SELECT version(), timezone()", "TabSeparated").bytes()
        self._version, self.timezone = row.decode().split()
        self._claimed_version: str = arguments.version
        self._claimed_id: str = arguments.server_id
        self._kind: str = arguments.kind
        self.authorization = basic_authorization(arguments.user, arguments.password)
        self.requests: list[dict[str, object]] = []
        self._faults: list[_Fault] = []
        self._faults_lock = threading.Lock()
        self._under_way = 0
        self._one_ended = threading.Condition()
        super().__init__(("127.0.0.1", arguments.port), _Handler)

    def set_fault(self, fault: _Fault) -> None:
        with self._faults_lock:
            self._faults = [] if fault.kind == "none" else [*self._faults, fault]

    def take_fault(self, sql: str) -> _Fault:
        """The fault this request has to suffer, of kind "none" mostly; counts it."""
        with self._faults_lock:
            for fault in self._faults:
                if fault.match in sql and fault.times != 0:
                    fault.times = None if fault.times is None else fault.times - 1
                    return fault
        return _Fault("none")

    def has_fault(self, fault: _Fault) -> bool:
        return any(fault is known for known in self._faults)

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """A statement is under way while the context lasts."""
        with self._one_ended:
            self._under_way += 1
        try:
            yield
        finally:
            with self._one_ended:
                self._under_way -= 1
                self._one_ended.notify_all()

    def wait_until_idle(self) -> bool:
        """Wait until no statement is under way; tell whether that came about."""
        with self._one_ended:
            return self._one_ended.wait_for(lambda: not self._under_way, IDLE_TIMEOUT_S)

    def run(self, sql: bytes, url: dict[str, str]) -> _Answer:
        """Run one statement with the parameters, settings and database of its URL."""
        insert = _INSERT_WITH_DATA.match(sql)
        with contextlib.ExitStack() as stack:
            connection = self._chdb.connect(self._source)
            stack.callback(connection.close)
            if self._claimed_version:
                sql = sql.replace(b"version()", b"'%b'" % self._claimed_version.encode())
            if self._claimed_id:
                sql = sql.replace(b"serverUUID()", b"toUUID('%b')" % self._claimed_id.encode())
            if insert:
                # Not inline: of a statement chDB reads the first 256 KiB only.
                file = stack.enter_context(tempfile.NamedTemporaryFile(dir=self._path))
                file.write(sql[insert.end() :])
                file.flush()
                sql = b"%b FROM INFILE '%b' FORMAT %b" % (insert[1], file.name.encode(), insert[2])
            elif self._kind:
                sql = as_plain(sql, self._kind)
            try:
                if "database" in url:
                    connection.query(f"USE `{url['database']}`")
                for name, value in _settings_in(url).items():
                    connection.query(_set_statement(name, value))
                # With the names, a statement that has a result answers even without rows.
                result = connection.query(sql, "TabSeparatedWithNames", params=parameters_in(url))
            except RuntimeError as error:
                return self.exception(str(error))
        names = ("rows_read", "bytes_read", "rows_written", "bytes_written")
        summary = {"_".join(n.split("_")[::-1]): str(getattr(result, n)()) for n in names}
        answer = _Answer(result.bytes(), headers={"X-ClickHouse-Summary": json.dumps(summary)})
        if not insert and (own_format := _TRAILING_FORMAT.search(sql)):
            answer.headers["X-ClickHouse-Format"] = own_format[1].decode()
        elif answer.body:
            answer.headers["X-ClickHouse-Format"] = "TabSeparated"
            answer.body = answer.body.partition(b"\n")[2]
        return answer

    def exception(self, text: str) -> _Answer:
        """The answer for an exception; `text` begins with its code, as the engine writes it."""
        code = int(exception_code(text))
        body = f"{text} (version {self._version} (official build))\n".encode()
        headers = {"X-ClickHouse-Exception-Code": str(code)}
        return _Answer(body, _STATUS_OF_CODE.get(code, 500), headers)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # Clients may leave as they like.
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # Head and body in one packet, else each answer waits for a delayed ACK.

    def do_POST(self) -> None:
        path, _, query = self.path.partition("?")
        url = dict(parse_qsl(query, keep_blank_values=True))
        body = self._read_body()
        if path == "/fault":
            self.server.set_fault(_Fault(**json.loads(body)))
            self._send(_Answer(b"{}"))
        elif path == "/requests":
            self._send(_Answer(json.dumps(self.server.requests).encode()))
        elif path == "/idle":
            self._send(_Answer(json.dumps(self.server.wait_until_idle()).encode()))
        else:
            if self.headers.get_content_type() == "multipart/form-data":
                url |= form_fields(str(self.headers.get_boundary()).encode(), body)
                body = b""
            sql = b"\n".join(part for part in (url.get("query", "").encode(), body) if part)
            with self.server.counted():
                self._answer(sql, url)

    do_GET = do_POST  # noqa: N815

    def _answer(self, sql: bytes, url: dict[str, str]) -> None:
        """Answer a statement, or /ping and the like if there is none."""
        insert = _INSERT_WITH_DATA.match(sql)
        text = (insert[0] if insert else sql).decode(errors="replace").strip()
        if text:
            self.server.requests.append({"sql": text, "settings": _settings_in(url)})
        fault = self.server.take_fault(text)
        if fault.kind == "slow":
            time.sleep(fault.seconds)
        if fault.kind == "refuse" or (fault.kind == "hang" and not self._outlasts(fault)):
            self._drop()
            return
        if fault.kind == "error":
            answer = self.server.exception(f"Code: {fault.code}. DB::Exception: {fault.text}")
        elif not text:
            answer = _Answer(b"Ok.\n")
        elif self._authorization() != self.server.authorization:
            answer = self.server.exception(
                "Code: 516. DB::Exception: Authentication failed: password is incorrect, or there "
                "is no user with such name. (AUTHENTICATION_FAILED)"
            )
        else:
            answer = self.server.run(sql, url)
        if fault.kind == "drop_answer":
            self._drop()
            return
        answer.headers["X-ClickHouse-Query-Id"] = url.get("query_id", str(uuid.uuid4()))
        answer.headers["X-ClickHouse-Timezone"] = self.server.timezone
        self._send(answer)

    def _authorization(self) -> str:
        return self.headers.get("Authorization", basic_authorization("default", ""))

    def _outlasts(self, fault: _Fault) -> bool:
        """Wait until the fault is cleared; False as soon as the client has gone."""
        while True:
            cleared = not self.server.has_fault(fault)
            readable = _readable(self.connection, 0.0 if cleared else 0.02)
            if readable and not self.connection.recv(1, socket.MSG_PEEK):
                return False
            if cleared:
                return True

    def _drop(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _send(self, answer: _Answer) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            data = self._read(int(self.headers.get("Content-Length", 0)))
        else:
            data = b""
            while chunk := self._read(int(self.rfile.readline() or b"0", 16) + 2)[:-2]:
                data += chunk
        encoding = self.headers.get("Content-Encoding")
        if encoding == "lz4":
            import lz4.frame  # type: ignore[import-untyped]

            with lz4.frame.open(io.BytesIO(data)) as frames:
                return bytes(frames.read())
        return gzip.decompress(data) if encoding == "gzip" else data

    def _read(self, size: int) -> bytes:
        data = self.rfile.read(size)
        if len(data) < size:
            raise ConnectionAbortedError("the client left before its request was complete")
        return data

    def log_message(self, *_: object) -> None:
        """No line per request on stderr."""


def _settings_in(fields: dict[str, str]) -> dict[str, str]:
    """The engine's settings among a request's fields."""
    return {name: value for name, value in fields.items() if not _NOT_A_SETTING.fullmatch(name)}


def _set_statement(name: str, value: str) -> str:
    """The statement that gives a setting a value."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"SET {quote_identifier(name)} = '{escaped}'"


def _configuration(file: Path, rights: Sequence[str] | None, profile: str) -> str:
    granted = "".join(f"<query>{escape(statement)}</query>" for statement in rights or ())
    return f"""<clickhouse>
        <profiles><default>{profile}</default></profiles>
        <quotas><default/></quotas>
        <users><default>
            <password/><networks><ip>::/0</ip></networks>
            <profile>default</profile><quota>default</quota>
            {f"<grants>{granted}</grants>" if rights is not None else ""}
        </default></users>
        <user_directories><users_xml><path>{file}</path></users_xml></user_directories>
    </clickhouse>"""


def _readable(source: IO[str] | socket.socket, within_s: float) -> bool:
    """Wait until there is something to read; tell whether there is."""
    # Not select(), which refuses descriptors from 1024 on.
    poll = select.poll()
    poll.register(source, select.POLLIN)
    return bool(poll.poll(within_s * 1000))


def _exit_with_parent() -> None:
    sys.stdin.read()
    os._exit(0)


def main() -> None:
    """Serve until SIGTERM or SIGINT, with ``--with-parent`` also until stdin is closed."""
    parser = argparse.ArgumentParser(description="ClickHouse HTTP server for tests")
    parser.add_argument("--path", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--user", default="default")
    parser.add_argument("--password", default="")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--version", default="")
    parser.add_argument("--server-id", default="")
    parser.add_argument("--kind", default="")
    parser.add_argument("--with-parent", action="store_true")
    arguments = parser.parse_args()
    server = _Server(arguments)
    for number in (signal.SIGTERM, signal.SIGINT):
        # Not sys.exit(): nothing shall run on the way out while queries do.
        signal.signal(number, lambda *_: os._exit(0))
    if arguments.with_parent:
        threading.Thread(target=_exit_with_parent, daemon=True).start()
    sys.stdout.write(f"listening on {server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
