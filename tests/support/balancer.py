"""A balancer in front of two servers of which the second one has all that is written later.

It stands for a cluster: a read goes to one of the two by chance, writes to the first one at once,
and to the second one, in their order, `lag_s` afterwards. Tables are made on both at once.
"""

import contextlib
import http.client
import random
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue
from typing import Final, NamedTuple, Self

from clickhouse_server import ClickHouseServer

TIMEOUT_S: Final = 30.0
WRITES: Final = b"INSERT"
DEFINES: Final = (b"CREATE", b"ALTER", b"DROP", b"EXCHANGE", b"SYSTEM", b"TRUNCATE")


class _Request(NamedTuple):
    due: float
    path: str
    body: bytes
    headers: dict[str, str]


class _Answer(NamedTuple):
    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes


class Balancer(ThreadingHTTPServer):
    """The balancer, in threads of this process. `host` and `port` are where it listens."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, servers: Sequence[ClickHouseServer], lag_s: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.host, self.port = "127.0.0.1", self.server_port
        self.servers = servers
        self.lag_s = lag_s
        self._dice = random.Random(20261128)
        self._late: Queue[_Request | None] = Queue()

    def __enter__(self) -> Self:
        for work in (self.serve_forever, self._replicate):
            threading.Thread(target=work, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._late.put(None)
        self.shutdown()
        self.server_close()

    def settle(self) -> None:
        """Return once the second server has all that was written."""
        self._late.join()

    def answer(self, path: str, body: bytes, headers: dict[str, str]) -> _Answer:
        """Return the answer of one of the servers."""
        statement = body.lstrip()[:9].upper()
        # Only rows come compressed.
        if statement.startswith(WRITES) or "Content-Encoding" in headers:
            self._late.put(_Request(time.monotonic() + self.lag_s, path, body, headers))
            return ask(self.servers[0], path, body, headers)
        if statement.startswith(DEFINES):
            ask(self.servers[1], path, body, headers)
            return ask(self.servers[0], path, body, headers)
        return ask(self._dice.choice(self.servers), path, body, headers)

    def _replicate(self) -> None:
        while (request := self._late.get()) is not None:
            time.sleep(max(0.0, request.due - time.monotonic()))
            ask(self.servers[1], request.path, request.body, request.headers)
            self._late.task_done()


class _Handler(BaseHTTPRequestHandler):
    server: Balancer
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def do_POST(self) -> None:
        """Pass a request on, and its answer back."""
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while chunk := self.rfile.read(int(self.rfile.readline() or b"0", 16) + 2)[:-2]:
                body += chunk
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        dropped = ("host", "transfer-encoding", "content-length")
        headers = {n: v for n, v in self.headers.items() if n.lower() not in dropped}
        answer = self.server.answer(self.path, body, headers)
        self.send_response(answer.status)
        for name, value in answer.headers:
            if name.lower() not in ("content-length", "server", "date"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    do_GET = do_POST  # noqa: N815

    def log_message(self, *_: object) -> None:
        """No line per request on stderr."""


def ask(server: ClickHouseServer, path: str, body: bytes, headers: dict[str, str]) -> _Answer:
    """Return a server's answer."""
    connection = http.client.HTTPConnection(server.host, server.port, timeout=TIMEOUT_S)
    with contextlib.closing(connection):
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        return _Answer(answer.status, answer.getheaders(), answer.read())
