"""A scripted Messages API: the service that rates news, over real HTTP on loopback."""

import asyncio
import json
import re
import socket
import threading
import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, NamedTuple

# The lines of a question that name its stocks.
_TICKER: Final = re.compile(r"^Ticker: (.+)$", re.MULTILINE)
_ERRORS: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}


class ScriptedRating(NamedTuple):
    """What the service answers about a stock."""

    recommendation: str = "HOLD"
    confidence: str = "low"
    explanation: str = "Nothing is scripted for this stock."


@dataclass(frozen=True)
class Fault:
    """What is wrong with an answer; by default nothing."""

    status: int = 200
    retry_after: str = ""
    """The header of that name, where there is one."""
    location: str = ""
    """The same."""
    message: str = "The fault that was asked for."
    """The error's text, for a status other than 200."""
    delay_s: float = 0.0
    """How long the answer takes."""
    text: str | None = None
    """The model's text instead of a rating."""
    stop_reason: str = "end_turn"
    body: bytes | None = None
    """The whole body, instead of a message."""
    content_type: str = "application/json"
    drop: bool = False
    """Whether the connection is cut instead of an answer."""


class MessagesRequest(NamedTuple):
    """A request as it came."""

    key: str
    headers: Mapping[str, str]
    """With names in lower case."""
    body: dict[str, Any]

    @property
    def question(self) -> str:
        """The user's message."""
        return str(self.body["messages"][0]["content"])


class MessagesServer:
    """Answers `POST /v1/messages` with scripted ratings, in threads of its own; and
    `GET /v1/models/MODEL`, which costs nothing, as the key's fault has it.

    An async context manager: it listens from `async with` on until the block ends. Its attributes
    may be read and set from any thread.

    Attributes
    ----------
    ratings
        Per ticker, what is answered; a ticker without one is HOLD, low. An answer about several
        has the explanation of the first.
    fault
        What is wrong with every answer.
    next_faults
        What is wrong with the next answers instead, one for each.
    key_faults
        Per key, what is wrong instead.
    ticker_faults
        Per ticker that a question names, the same.
    requests
        Every request so far.
    most_at_once
        The most requests that were under way together.
    """

    def __init__(self, ratings: Mapping[str, ScriptedRating] | None = None, port: int = 0) -> None:
        """A port of 0 is a free one."""
        self.ratings = dict(ratings or {})
        self.fault = Fault()
        self.next_faults: deque[Fault] = deque()
        self.key_faults: dict[str, Fault] = {}
        self.ticker_faults: dict[str, Fault] = {}
        self.requests: list[MessagesRequest] = []
        self.most_at_once = 0
        self._at_once = 0
        self._counting = threading.Lock()
        self._ended = threading.Event()
        self._server = _Server(self, port)

    @property
    def url(self) -> str:
        """The base address, for a client."""
        return f"http://127.0.0.1:{self._server.server_port}"

    async def __aenter__(self) -> "MessagesServer":
        threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="messages-api", daemon=True
        ).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ended.set()
        await asyncio.to_thread(self._server.shutdown)
        self._server.server_close()

    def answer(self, request: MessagesRequest) -> tuple[Fault, bytes]:
        """What to send, after the time it takes."""
        with self._counting:
            self.requests.append(request)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            fault = self.key_faults.get(request.key, self.fault)
            for ticker in _TICKER.findall(request.question):
                fault = self.ticker_faults.get(ticker, fault)
            if self.next_faults:
                fault = self.next_faults.popleft()
        self._ended.wait(fault.delay_s)
        with self._counting:
            self._at_once -= 1
        if fault.body is not None:
            return fault, fault.body
        content = (
            self._message(request, fault)
            if fault.status == 200
            else {
                "type": "error",
                "error": {
                    "type": _ERRORS.get(fault.status, "api_error"),
                    "message": fault.message,
                },
            }
        )
        return fault, json.dumps(content).encode()

    def model(self, key: str, name: str) -> tuple[Fault, bytes]:
        """What to send to whoever asks for a model with a key."""
        fault = self.key_faults.get(key, self.fault)
        error = {"type": _ERRORS.get(fault.status, "api_error"), "message": fault.message}
        content = (
            {
                "type": "model",
                "id": name,
                "display_name": name,
                "created_at": "2026-01-01T00:00:00Z",
            }
            if fault.status == 200
            else {"type": "error", "error": error}
        )
        return fault, json.dumps(content).encode()

    def _message(self, request: MessagesRequest, fault: Fault) -> dict[str, Any]:
        asked = _TICKER.findall(request.question)
        ratings = {ticker: self.ratings.get(ticker, ScriptedRating()) for ticker in asked}
        answer = {
            "ratings": [
                {
                    "ticker": ticker,
                    "recommendation": each.recommendation,
                    "confidence": each.confidence,
                }
                for ticker, each in ratings.items()
            ],
            "explanation": next((each.explanation for each in ratings.values()), ""),
        }
        text = json.dumps(answer) if fault.text is None else fault.text
        return {
            "id": f"msg_{uuid.uuid4().hex}",
            "type": "message",
            "role": "assistant",
            "model": request.body.get("model"),
            "content": [{"type": "text", "text": text}],
            "stop_reason": fault.stop_reason,
            "stop_sequence": None,
            "usage": {"input_tokens": 500, "output_tokens": 60},
        }


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, api: MessagesServer, port: int) -> None:
        self.api = api
        super().__init__(("127.0.0.1", port), _Handler)

    def handle_error(self, *_: object) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        if self.path != "/v1/messages":
            self.send_error(404)
            return
        key = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
        request = MessagesRequest(key, headers, json.loads(content))
        self._answer(*self.server.api.answer(request))

    def do_GET(self) -> None:
        model = self.path.removeprefix("/v1/models/")
        if model == self.path:
            self.send_error(404)
            return
        self._answer(*self.server.api.model(self.headers["x-api-key"], model))

    def _answer(self, fault: Fault, body: bytes) -> None:
        if fault.drop:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response(fault.status)
        self.send_header("Content-Type", fault.content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (("Retry-After", fault.retry_after), ("Location", fault.location)):
            if value:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """The requests are recorded; nothing is written to the terminal."""
