"""A proxy of the environment carries what goes outside, of each library, and no loopback."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from clickhouse_server import ClickHouseServer
from commands import Command

from newshead.process import EXIT_FAILED, EXIT_MISCONFIGURED, EXIT_OK
from simulator.feeds import FeedServer

Start = Callable[..., Command]


class Proxy(ThreadingHTTPServer):
    """Notes what it is asked for, and gets nobody anywhere."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Refusing)
        self.asked: set[str] = set()


class Refusing(BaseHTTPRequestHandler):
    server: Proxy

    def refuse(self) -> None:
        self.server.asked.add(f"{self.command} {self.path}")
        self.send_response(502)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_CONNECT = do_GET = do_POST = refuse  # noqa: N815 -- http.server calls them so

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with Proxy() as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


async def test_each_library_goes_through_the_proxy_to_the_outside_and_never_to_loopback(
    start: Start, proxy: Proxy, server: ClickHouseServer
) -> None:
    async with FeedServer() as feed:
        command = start(
            *("run_system.py", "--socket", "--any"),
            ALL_PROXY=f"127.0.0.1:{proxy.server_port}",
            CLICKHOUSE_HOST=server.host,
            CLICKHOUSE_PORT=server.port,
            NEWS_SOURCES="benzinga alpaca wires",
            BENZINGA_API_KEY="k",
            BENZINGA_STREAM_URL="ws://benzinga.invalid/stream",
            ALPACA_API_KEY="k",
            ALPACA_API_SECRET="k",
            ALPACA_STREAM_URL="wss://alpaca.invalid/news",
            WIRE_FEEDS=f"http://wire.invalid/rss {feed.url}",
            ANTHROPIC_API_KEY="k",
            ANTHROPIC_BASE_URL="http://claude.invalid",
            ALLOW_UNENCRYPTED_KEYS="true",
            FINVIZ_EXPORT_URL="https://finviz.invalid/export",
            IBKR_PORT=9,
        )
        await asyncio.to_thread(command.shows, "Connected to ClickHouse|moved to")
        feed.publish("Firm wins", "(NASDAQ: ABCD)")
        await asyncio.to_thread(command.shows, "News ABCD: Firm wins")
        assert await asyncio.to_thread(command.stop) == EXIT_OK
    assert proxy.asked == {
        "CONNECT benzinga.invalid:80",
        "CONNECT alpaca.invalid:443",
        "GET http://wire.invalid/rss",
        "GET http://claude.invalid/v1/models/claude-haiku-5-5",
        "POST http://claude.invalid/v1/messages",
        "CONNECT finviz.invalid:443",
    }


def test_push_messages_go_through_the_proxy_too(start: Start, proxy: Proxy) -> None:
    command = start(
        *("dashboard/notify.py", "--test"),
        HTTP_PROXY=f"127.0.0.1:{proxy.server_port}",
        ALERT_URLS="json://push.invalid/x",
    )
    assert command.ends() == EXIT_FAILED
    assert proxy.asked == {"POST http://push.invalid/x"}


@pytest.mark.parametrize("value", ["ftp://a:1", "http://", "http://a:99999", "socks5://a:1080"])
def test_an_unusable_proxy_is_one_sentence_where_it_is_needed_and_nothing_where_it_is_not(
    start: Start, value: str
) -> None:
    command = start("run_system.py", "--socket", HTTPS_PROXY=value, BENZINGA_API_KEY="k")
    assert command.ends() == EXIT_MISCONFIGURED
    assert command.text().startswith("run_system.py: HTTPS_PROXY ")
    assert command.text().count("\n") == 1
    command.output.unlink()
    command = start("run_system.py", "--skip-list", HTTPS_PROXY=value, IBKR_PORT=9)
    command.shows("Price monitor initialized|Watching the folder")
    assert command.stop() == EXIT_OK
    assert "Traceback" not in command.text()
