"""`run_system.py --check`: what it tries, what it says, and what it leaves alone."""

import asyncio
import re
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from clickhouse_server import ClickHouseServer
from commands import PROJECT, Command, until
from monitoring import connected_to

from newshead.check.database import RIGHTS
from newshead.check.tws import CLIENT_IDS
from newshead.process import EXIT_FAILED, EXIT_OK
from newshead.settings import Settings
from simulator import Gateway, GatewayThread, Market, MessagesServer, Trade
from simulator.feeds import FeedServer
from simulator.messages import Fault
from simulator.news import NewsServer

Start = Callable[..., Command]

KEY = "Tr0ub4dor-and-3"
LIST = "No.,Ticker,Company\n1,ABCD,Alphabet Soup\n"


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    trades = [Trade(second / 4, "SPY", 500 + second % 5, 100) for second in range(1000)]
    with GatewayThread(Gateway(Market(trades))) as thread:
        yield thread.gateway


@pytest.fixture
def receiver() -> Iterator[ThreadingHTTPServer]:
    """A push service that takes every message."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing goes to the terminal."""

    received: list[bytes] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.received = received  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def in_folder(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def test_each_configured_part_is_tried_and_nothing_is_sent_made_or_shown_that_is_secret(
    start: Start,
    bare_server: ClickHouseServer,
    gateway: Gateway,
    receiver: ThreadingHTTPServer,
    tmp_path: Path,
) -> None:
    (tmp_path / "list.csv").write_text(LIST)
    variables = {
        "IBKR_PORT": gateway.port,
        "CLICKHOUSE_HOST": bare_server.host,
        "CLICKHOUSE_PORT": bare_server.port,
        "NEWS_SOURCES": "benzinga wires",
        "BENZINGA_API_KEY": KEY,
        "ANTHROPIC_API_KEY": KEY,
        "TICKER_LIST_CSV": "list.csv",
        "ALERT_URLS": f"json://127.0.0.1:{receiver.server_port}/?-token={KEY}",
        "DASHBOARD_PORT": closed_port(),
        "METRICS_PORT": closed_port(),
    }
    async with MessagesServer() as service, NewsServer() as stream, FeedServer() as feed:
        variables |= {
            "ANTHROPIC_BASE_URL": service.url,
            "BENZINGA_STREAM_URL": stream.url,
            "WIRE_FEEDS": f"{feed.url}?key={KEY}",
        }
        command = start("run_system.py", "--check", **variables)
        assert await asyncio.to_thread(command.ends) == EXIT_OK, command.text()
        assert not service.requests
        assert not stream.received
        sending = start("run_system.py", "--check", "--send", **variables)
        assert await asyncio.to_thread(sending.ends) == EXIT_OK, sending.text()
        assert len(service.requests) == 1
    told = command.text()
    for part in (
        *("Python", "variables", "folders", "clock", "TWS", "market data", "database", "news"),
        *("rating", "ticker list", "push", "page", "metrics"),
    ):
        assert f"\nok      {part} " in told
    assert "PAPER" in told
    assert KEY not in told
    assert "BENZINGA_API_KEY=********" in told
    assert receiver.received  # type: ignore[attr-defined]
    assert len(receiver.received) == 1  # type: ignore[attr-defined]
    assert {request.client_id for request in gateway.requests} == {CLIENT_IDS[0]}
    with connected_to(bare_server) as database:
        assert not database.rows("SELECT 1 FROM system.databases WHERE name = 'News'")
    assert in_folder(tmp_path) == {"list.csv", command.output.name, ".newshead.lock"}


async def test_each_part_that_does_not_work_says_what_to_do(start: Start, tmp_path: Path) -> None:
    async with MessagesServer() as service, NewsServer() as stream:
        service.fault = Fault(status=401, message=f"invalid x-api-key {KEY}")
        stream.refuse_with = 401
        with socket.create_server(("127.0.0.1", 0)) as taken:
            command = start(
                *("run_system.py", "--check"),
                IBKR_PORT=closed_port(),
                CLICKHOUSE_HOST="127.0.0.1",
                CLICKHOUSE_PORT=closed_port(),
                BENZINGA_API_KEY=KEY,
                BENZINGA_STREAM_URL=stream.url,
                BENZINGA_APIKEY=KEY,
                ANTHROPIC_API_KEY=KEY,
                ANTHROPIC_BASE_URL=service.url,
                TICKER_LIST_CSV="none.csv",
                ALERT_URLS="nonsense",
                DASHBOARD_PORT=taken.getsockname()[1],
                METRICS_PORT=taken.getsockname()[1],
            )
            assert await asyncio.to_thread(command.ends) == EXIT_FAILED
    found = " ".join(command.text().split())
    for part, told in (
        ("variables", "is BENZINGA_API_KEY meant"),
        ("TWS", "start TWS or IB Gateway"),
        ("database", "check CLICKHOUSE_HOST"),
        ("news", "check BENZINGA_API_KEY"),
        ("rating", "ANTHROPIC_API_KEY: the service answered 401: invalid x-api-key (the key)"),
        ("ticker list", "check TICKER_LIST_CSV"),
        ("push", "no address that apprise knows"),
        ("page", "DASHBOARD_PORT to a free port"),
        ("metrics", "Set METRICS_PORT to a free port"),
    ):
        assert told in found.partition(f"FAILED {part} ")[2], part
    assert KEY not in found
    assert "Traceback" not in found
    findings = command.text().partition("Trying each part:")[2].splitlines()
    # The folder's path is as long as it is.
    assert max(len(line) for line in findings if str(tmp_path) not in line) <= 80
    assert not (tmp_path / "logs").exists()


def test_rights_that_the_databases_user_lacks_are_named(
    start: Start, gateway: Gateway, tmp_path: Path
) -> None:
    documented = (PROJECT / "docs/database.md").read_text()
    assert [right for right in RIGHTS if not re.search(rf"GRANT .*\b{right}\b", documented)] == []
    rights = [f"GRANT {', '.join(RIGHTS[:3])} ON News.*"]
    with ClickHouseServer(tmp_path / "clickhouse", rights=rights) as server:
        command = start(
            *("run_system.py", "--check"),
            IBKR_PORT=gateway.port,
            CLICKHOUSE_HOST=server.host,
            CLICKHOUSE_PORT=server.port,
            DASHBOARD_PORT=closed_port(),
        )
        assert command.ends() == EXIT_FAILED
    told = " ".join(command.text().split())
    assert f"lacks the rights {', '.join(RIGHTS[3:])} on News.*: grant them" in told


@pytest.mark.parametrize("embedded", [False, True])
def test_while_newshead_runs_its_own_state_is_shown_and_nothing_is_connected_to(
    start: Start, server: ClickHouseServer, gateway: Gateway, *, embedded: bool
) -> None:
    on = {} if embedded else {"CLICKHOUSE_HOST": server.host, "CLICKHOUSE_PORT": server.port}
    newshead = start("run_system.py", "--skip-list", IBKR_PORT=gateway.port, **on)
    newshead.shows("IBKR connection established")
    checks: list[Command] = []

    def all_fine() -> bool:
        checks.append(start("run_system.py", "--check", "--send", IBKR_PORT=gateway.port, **on))
        return checks[-1].ends() == EXIT_OK

    until(all_fine, lambda: checks[-1].text())
    told = checks[-1].text().partition("newshead runs in this folder")[2]
    assert "\nok      ibkr " in told
    assert "\nok      market data " in told
    assert "\noff     page " in told
    assert "\noff     rating " in told
    assert {request.client_id for request in gateway.requests} <= {Settings().ibkr_client_id}
    assert newshead.stop() == EXIT_OK
