"""What costs alerts is told in every way: part_status, page, health, metrics, push, --check."""

import asyncio
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from clickhouse_server import ClickHouseServer
from commands import Command, free_port, on_server, until

from newshead.process import EXIT_FAILED, EXIT_OK
from simulator import Fault, Gateway, MessagesServer
from simulator.news import NewsServer


@contextmanager
def receiving() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A push service: its address and what it got."""
    received: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing goes to the terminal."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as service:
        threading.Thread(target=service.serve_forever, daemon=True).start()
        yield f"json://127.0.0.1:{service.server_port}/", received
        service.shutdown()


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read().decode()
    except OSError:
        return 0, ""


def page(port: int) -> dict[str, Any]:
    """The page's first update."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/feed", timeout=20) as feed:
        for line in feed:
            if line.startswith(b"data: "):
                found: dict[str, Any] = json.loads(line.removeprefix(b"data: "))
                return found
    return {}


STATES = {
    "database": "ok",
    "ibkr": "ok",
    "market data": "ok",
    "news alpaca": "off",
    "news benzinga": "refused",
    "news wires": "off",
    "page": "ok",
    "price monitor": "ok",
    "push": "ok",
    "rating": "refused",
    "ticker list": "off",
    "trigger folder": "ok",
}


def states(shown: dict[str, Any]) -> dict[str, str]:
    return {name: state for name, state, *_ in shown["parts"]}


async def test_a_refused_news_key_and_a_refused_rating_key_are_told_in_every_way(
    start: Callable[..., Command], server: ClickHouseServer, gateway: Gateway
) -> None:
    web, metrics = free_port(), free_port()
    async with MessagesServer() as service, NewsServer() as stream:
        service.fault = Fault(status=401, message="invalid x-api-key")
        stream.refuse_with = 401
        with receiving() as (address, received):
            variables = on_server(server, gateway) | {
                "BENZINGA_API_KEY": "wrong",
                "BENZINGA_STREAM_URL": stream.url,
                "ANTHROPIC_API_KEY": "wrong",
                "ANTHROPIC_BASE_URL": service.url,
                "ALERT_URLS": address,
                "DASHBOARD_PORT": web,
                "METRICS_PORT": metrics,
            }
            newshead = start(
                *("run_system.py", "--skip-list", "--any", "--socket", "--dashboard"), **variables
            )

            def look() -> None:
                until(lambda: len(received) >= 2, lambda: f"both messages: {received}")
                until(lambda: get(metrics, "/healthz")[0] == 503, lambda: "ill health")
                until(
                    lambda: get(metrics, "/healthz")[1].count("refuse") == 2,
                    lambda: f"both reasons: {get(metrics, '/healthz')}",
                )
                series = get(metrics, "/metrics")[1]
                for part in ("news benzinga", "rating"):
                    assert f'newshead_part_state{{part="{part}",state="refused"}} 1.0' in series
                until(lambda: states(page(web)) == STATES, lambda: f"{states(page(web))}")
                shown = page(web)
                assert [text.split(":")[0] for text in shown["failing"]] == [
                    "news benzinga",
                    "rating",
                ]
                check = start("run_system.py", "--check", **variables)
                assert check.ends() == EXIT_FAILED
                told = " ".join(check.text().split())
                assert "FAILED news benzinga refused for " in told
                assert "ok push ok for " in told
                assert newshead.stop() == EXIT_OK

            await asyncio.to_thread(look)
    assert sorted(message["title"] for message in received) == [
        "newshead: news benzinga is refused",
        "newshead: rating is refused",
    ]
