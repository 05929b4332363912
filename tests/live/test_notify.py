"""Push: from rows in the real database to messages at a service behind HTTP."""

import asyncio
import contextlib
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from clickhouse_server import ClickHouseServer
from commands import PROJECT, Command, alive
from deadlines import DEADLINE_S
from monitoring import rate
from watching import write_part, write_status

from clickhouse_manager import ClickHouseManager
from dashboard import losses, notify, services
from dashboard.escaping import escaped
from newshead.core.times import NEW_YORK
from newshead.database.store import Batch, insert
from newshead.database.tables import AlertRow, PriceRow
from newshead.process import EXIT_FAILED, EXIT_MISCONFIGURED, EXIT_OK
from newshead.settings import ConfigurationError, Settings
from simulator import Gateway, GatewayThread, Market, Trade

TOKEN = "s3cr3t-t0ken"


class Receiver(ThreadingHTTPServer):
    """A service that takes apprise's json:// messages; `status` and `delay_s` are its faults."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Take)
        self.status = 200
        self.refuses = "nothing"
        self.delay_s = 0.0
        self.tries = 0
        self.messages: list[tuple[float, str, str]] = []

    @property
    def address(self) -> str:
        return f"json://user:{TOKEN}@127.0.0.1:{self.server_port}/{TOKEN}"

    @property
    def titles(self) -> list[str]:
        return [title for _, title, _ in self.messages]


class _Take(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if "text" in message:
            # Mattermost's kind.
            title, _, body = message["text"].partition("\r\n")
            message = {"title": title, "message": body}
        self.server.tries += 1
        status = 400 if self.server.refuses in message["title"] else self.server.status
        time.sleep(self.server.delay_s)
        if status == 200:
            self.server.messages.append((time.monotonic(), message["title"], message["message"]))
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """No line per request on stderr."""


@pytest.fixture
def make_receiver() -> Iterator[Callable[[], Receiver]]:
    made: list[Receiver] = []

    def make() -> Receiver:
        made.append(Receiver())
        threading.Thread(target=made[-1].serve_forever, daemon=True).start()
        return made[-1]

    yield make
    for receiver in made:
        receiver.shutdown()
        receiver.server_close()


@pytest.fixture
def receiver(make_receiver: Callable[[], Receiver]) -> Receiver:
    return make_receiver()


@pytest.fixture
def settings(server: ClickHouseServer, receiver: Receiver) -> Settings:
    return Settings(
        clickhouse_host=server.host,
        clickhouse_port=server.port,
        alert_urls=(receiver.address,),
    )


@contextmanager
def pushing(settings: Settings) -> Iterator[None]:
    """The push at work, after its first look."""
    stopping = threading.Event()
    thread = threading.Thread(
        target=notify.run, args=(settings, services.services(settings.alert_urls), stopping)
    )
    thread.start()
    time.sleep(2 * notify.POLL_S + 0.5)
    try:
        yield
    finally:
        stopping.set()
        thread.join(DEADLINE_S)
        assert not thread.is_alive()
        # What they note of the last message comes after it.
        for sending in threading.enumerate():
            if sending.name.startswith("push "):
                sending.join(DEADLINE_S)


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come about"
        time.sleep(0.01)


def add(database: ClickHouseManager, *rows: Any) -> None:
    insert(database.client, Batch(rows, str(time.time_ns())))


def alert(database: ClickHouseManager, ticker: str, ago_s: float = 0.0, price: float = 2.2) -> None:
    add(database, AlertRow(ticker, datetime.now(UTC) - timedelta(seconds=ago_s), 1, price))


def status(database: ClickHouseManager, state: str) -> None:
    """What a monitor writes of itself and of its connection."""
    write_status(database, state=state)
    write_part(database, "price monitor", "ok")
    write_part(database, "ibkr", "ok" if state == "ready" else "lost", f"{state}.")


@contextmanager
def reporting(database: ClickHouseManager, state: str) -> Iterator[Callable[[str], None]]:
    """A monitor that writes its status again and again; call what it gives to change its state."""
    stopping, told = threading.Event(), threading.Event()
    states = [state]

    def report() -> None:
        # One connection: making others takes a busy machine as long as a loss may last.
        manager = ClickHouseManager(database.settings)
        manager.connect()
        while not stopping.wait(0.1):
            status(manager, states[-1])
            told.set()
        manager.close()

    thread = threading.Thread(target=report)
    thread.start()
    try:
        assert told.wait(DEADLINE_S)
        yield states.append
    finally:
        stopping.set()
        thread.join()


def test_the_first_alert_of_each_ticker_is_told_once_with_all_that_is_known(
    database: ClickHouseManager, settings: Settings, receiver: Receiver
) -> None:
    rate(
        database,
        "ABCD",
        "BUY",
        headline="ABCD <b>soars</b>\n on news",
        explanation="A first approval.",
        article_url="https://example.com/soars",
    )
    # Not what the row's rating came from.
    rate(database, "ABCD", "HOLD", headline="Others follow")
    now = datetime.now(UTC).replace(microsecond=0)
    for second, price in enumerate((2.0, 2.01, 2.02, 2.211)):
        row = PriceRow(now + timedelta(seconds=second), "ABCD", price, 1, "x", "p", "BUY", "high")
        add(database, row)
    with pushing(settings):
        begun = time.monotonic()
        add(database, AlertRow("ABCD", now + timedelta(seconds=3), 2, 2.211))
        until(lambda: receiver.messages, "the message")
        # The promise is a second; a noisy machine gets five times as much.
        assert receiver.messages[0][0] - begun < 5
        alert(database, "ABCD", -5)
        alert(database, "EFGH")
        until(lambda: len(receiver.messages) == 2, "the other ticker's message")
        time.sleep(3 * notify.POLL_S)
        # A fresh session.
        database.move_session()
        time.sleep(3 * notify.POLL_S)
        alert(database, "ABCD", -5)
        until(lambda: len(receiver.messages) == 3, "the message of the next session")
    assert receiver.titles == ["ALERT 2: ABCD $2.2110", "ALERT 1: EFGH $2.2000", *_first("ABCD")]
    at = f"{(now + timedelta(seconds=3)).astimezone(NEW_YORK):%H:%M:%S}"
    assert receiver.messages[0][2].split("\n") == [
        f"+10.0 % in 3 s, {at} New York time",
        "BUY high: A first approval.",
        "ABCD <b>soars</b> on news",
        "https://example.com/soars",
    ]


def _first(ticker: str) -> list[str]:
    return [f"ALERT 1: {ticker} $2.2000"]


def test_a_start_sends_no_old_alerts(
    database: ClickHouseManager, settings: Settings, receiver: Receiver
) -> None:
    alert(database, "OLD", 90)
    alert(database, "NEW", 10)
    with pushing(settings):
        until(lambda: receiver.messages, "the message")
        # It comes late, as after an outage of the database.
        alert(database, "LATE", 300)
        until(lambda: len(receiver.messages) == 2, "the late one")
        alert(database, "OLD")
        time.sleep(3 * notify.POLL_S)
    assert receiver.titles == _first("NEW") + _first("LATE")


def test_a_connection_is_told_lost_after_its_time_and_back(
    database: ClickHouseManager,
    settings: Settings,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(losses, "LOST", timedelta(seconds=3))
    with reporting(database, "ready") as turn, pushing(settings):
        turn("disconnected")
        time.sleep(0.5)
        turn("ready")
        time.sleep(3)
        assert receiver.messages == []
        lost_at = time.monotonic()
        for state in ("disconnected", "connecting", "disconnected", "stale", "disconnected"):
            turn(state)
            time.sleep(0.5)
        until(lambda: receiver.messages, "the loss")
        assert receiver.messages[0][0] - lost_at > 2.0
        time.sleep(2)
        back_at = time.monotonic()
        turn("ready")
        until(lambda: len(receiver.messages) > 1, "the return")
        assert receiver.messages[1][0] - back_at < 5
        time.sleep(2)
    assert [title.split(" IBKR ")[1] for title in receiver.titles] == ["is lost", "is back"]
    assert receiver.messages[0][2].startswith("PAPER: disconnected. Since ")
    assert receiver.messages[1][2].startswith("PAPER: it works again. It was lost at ")


def test_a_database_that_cannot_be_read_is_told_once_and_is_no_lost_connection(
    database: ClickHouseManager,
    server: ClickHouseServer,
    settings: Settings,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(losses, "LOST", timedelta(seconds=5))
    with pushing(settings):
        status(database, "ready")
        time.sleep(1)
        server.fault("error", match="FROM News", code=241, text="Memory limit exceeded")
        time.sleep(7)
        alert(database, "ABCD")
        server.clear_faults()
        # The monitor could not write either, and takes its time.
        until(lambda: len(receiver.messages) == 3, "the alert")
        with reporting(database, "ready"):
            time.sleep(1)
    # For more than LOST_S it is a message of its own.
    assert sorted(receiver.titles) == [
        *_first("ABCD"),
        "newshead: database is back",
        "newshead: database is lost",
    ]
    assert "Memory limit exceeded" in receiver.messages[0][2]
    lines = [r.getMessage() for r in caplog.records if "ClickHouse" in r.getMessage()]
    assert len(lines) == 2
    assert "until ClickHouse works" in lines[0]
    assert "can be read again" in lines[1]


def test_a_slow_service_delays_no_other(
    database: ClickHouseManager,
    settings: Settings,
    receiver: Receiver,
    make_receiver: Callable[[], Receiver],
    caplog: pytest.LogCaptureFixture,
) -> None:
    slow = make_receiver()
    slow.delay_s = 3.5
    tickers = [f"T{number}" for number in range(5)]
    both = Settings(**(vars(settings) | {"alert_urls": (slow.address, receiver.address)}))
    with pushing(both):
        begun = time.monotonic()
        for ticker in tickers:
            alert(database, ticker)
        until(lambda: len(receiver.messages) == len(tickers), "the other's messages")
        assert receiver.messages[-1][0] - begun < 5
        assert len(slow.messages) < len(tickers)
        # The other's last message counts as sent once its answer has arrived.
        time.sleep(0.5)
        missing = len(tickers) - len(slow.messages)
    assert f"{missing} messages were not sent" in caplog.text


def test_a_message_that_a_service_refuses_blocks_no_other(
    database: ClickHouseManager,
    settings: Settings,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="dashboard")
    monkeypatch.setattr(services, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(services, "MAX_PAUSE_S", 0.2)
    monkeypatch.setattr(services, "MAX_MESSAGE_AGE_S", 6.0)
    receiver.refuses = "NEVER"
    with pushing(settings):
        alert(database, "NEVER")
        until(lambda: receiver.tries >= 3, "three attempts")
        for ticker in ("ABCD", "EFGH"):
            alert(database, ticker)
        until(lambda: len(receiver.messages) == 2, "the other messages")
        tries = receiver.tries
        until(lambda: receiver.tries > tries, "one more attempt")
        time.sleep(6)
        alert(database, "LAST")
        until(lambda: "accepts messages again" in caplog.text, "the end")
    assert receiver.titles == _first("ABCD") + _first("EFGH") + _first("LAST")
    assert caplog.text.count("does not accept messages") == 1
    assert "accepts messages again; 1 were dropped." in caplog.text


def test_a_restart_sends_nothing_twice(
    database: ClickHouseManager,
    settings: Settings,
    receiver: Receiver,
    make_receiver: Callable[[], Receiver],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(losses, "LOST", timedelta(seconds=3))
    other = make_receiver()
    other.status = 500
    both = Settings(**(vars(settings) | {"alert_urls": (receiver.address, other.address)}))
    with pushing(both):
        alert(database, "ABCD")
        with reporting(database, "disconnected"):
            until(lambda: len(receiver.messages) == 2, "the alert and the loss")
    other.status = 200
    turned = Settings(**(vars(settings) | {"alert_urls": (other.address, receiver.address)}))
    with pushing(turned):
        # Who did not take it before gets it now.
        until(lambda: other.titles == _first("ABCD"), "the other's alert")
        with reporting(database, "disconnected") as turn:
            time.sleep(4)
            turn("ready")
            until(lambda: len(receiver.messages) == 3, "the return")
    assert sorted(receiver.titles) == [
        *_first("ABCD"),
        "newshead: connection to IBKR is back",
        "newshead: connection to IBKR is lost",
    ]
    assert Path("data/push_sent.json").exists()
    Path("data/push_sent.json").write_text("{ half of it")
    with pushing(settings):
        until(lambda: receiver.titles.count(_first("ABCD")[0]) == 2, "the alert, nobody knows")


def test_what_is_silenced_is_not_told(
    database: ClickHouseManager, settings: Settings, receiver: Receiver
) -> None:
    silence = {"alert_silence": ("alerts", "news")}
    with pushing(Settings(**(vars(settings) | silence))):
        alert(database, "ABCD")
        write_part(database, "price monitor", "ok")
        write_part(database, "news benzinga", "refused", "the key is refused.")
        write_part(database, "rating", "refused", "the service refuses every key.")
        until(lambda: receiver.messages, "the refusal")
        time.sleep(3 * notify.POLL_S)
    assert receiver.titles == ["newshead: rating is refused"]


HOSTILE = "@everyone [x](http://evil.example) <@1> **www.evil.example** up 2.5 % \x1b"


def test_a_headline_mentions_nobody_and_becomes_no_link_and_no_markup(
    database: ClickHouseManager, settings: Settings, receiver: Receiver
) -> None:
    rate(database, "ABCD", "BUY", headline=HOSTILE)
    chat = f"mmost://127.0.0.1:{receiver.server_port}/abcdefghijklmnop"
    with pushing(Settings(**(vars(settings) | {"alert_urls": (chat,)}))):
        alert(database, "ABCD")
        until(lambda: receiver.messages, "the message")
    [(_, title, body)] = receiver.messages
    assert title == _first("ABCD")[0]
    assert body.splitlines()[-1].rstrip() == (
        "@\u2060everyone \\[x\\]\u2060(http:\u2060//evil.\u2060example) <\u2060@\u20601\\> "
        "\\*\\*www.\u2060evil.\u2060example\\*\\* up 2.5 %"
    )


@pytest.mark.parametrize(
    ("scheme", "text"),
    [
        ("json", HOSTILE),
        (
            "tgram",
            "@\u2060everyone [x]\u2060(http:\u2060//evil.\u2060example) <\u2060@\u20601> "
            "**www.\u2060evil.\u2060example** up 2.5 %  ",
        ),
    ],
)
def test_programs_get_text_as_it_is_and_people_without_what_acts(scheme: str, text: str) -> None:
    assert escaped(HOSTILE, scheme) == text


def test_a_failing_service_is_told_once_tried_again_and_named_without_its_token(
    database: ClickHouseManager,
    settings: Settings,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, logger="dashboard")
    monkeypatch.setattr(services, "FIRST_PAUSE_S", 0.05)
    receiver.status = 403
    with pushing(settings):
        alert(database, "ABCD")
        until(lambda: receiver.tries >= 3, "three attempts")
        alert(database, "EFGH")
        receiver.status = 200
        until(lambda: len(receiver.messages) == 2, "both messages")
    assert sorted(receiver.titles) == _first("ABCD") + _first("EFGH")
    lines = [r.getMessage() for r in caplog.records if "address 1" in r.getMessage()]
    assert [line.split(" of ALERT_URLS) ")[-1] for line in lines] == [
        "Alerts are sent to json (address 1 of ALERT_URLS).",
        "does not accept messages; each is retried for 10 minutes.",
        "accepts messages again; 0 were dropped.",
    ]
    assert TOKEN not in caplog.text


def test_what_cannot_be_sent_in_time_and_what_is_too_much_is_given_up_and_counted(
    database: ClickHouseManager,
    settings: Settings,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(services, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(services, "MAX_PAUSE_S", 0.2)
    monkeypatch.setattr(services, "MAX_MESSAGE_AGE_S", 3.0)
    monkeypatch.setattr(services, "MAX_WAITING", 2)
    receiver.status = 500
    with pushing(settings):
        for number in range(5):
            alert(database, f"T{number}")
            time.sleep(2 * notify.POLL_S / 5)
        time.sleep(6)
        assert receiver.messages == []
        receiver.status = 200
        alert(database, "LAST")
        until(lambda: "accepts messages again" in caplog.text, "the recovery")
    assert receiver.titles == _first("LAST")
    assert "accepts messages again; 5 were dropped." in caplog.text


def test_an_address_that_is_none_is_named_without_it_and_the_others_are_served(
    database: ClickHouseManager,
    settings: Settings,
    receiver: Receiver,
    caplog: pytest.LogCaptureFixture,
) -> None:
    wrong = (f"nothing://{TOKEN}", TOKEN)
    some = Settings(**(vars(settings) | {"alert_urls": (*wrong, receiver.address)}))
    with pushing(some):
        alert(database, "ABCD")
        until(lambda: receiver.messages, "the message")
    lines = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert [line.split(")")[0] for line in lines] == [
        "nothing (address 1 of ALERT_URLS",
        "service (address 2 of ALERT_URLS",
    ]
    assert TOKEN not in caplog.text
    none = Settings(**(vars(settings) | {"alert_urls": wrong}))
    with pytest.raises(ConfigurationError, match="names no service"):
        asyncio.run(notify.watch(none))


@contextmanager
def command(folder: Path, *arguments: str, **variables: object) -> Iterator[Command]:
    """run_system.py at work in `folder`."""
    begun = Command(folder, "run_system.py", "--skip-list", *arguments, **variables)
    try:
        yield begun
    finally:
        with contextlib.suppress(ProcessLookupError):
            begun.process.kill()
        begun.process.wait()


def test_newshead_starts_the_push_as_a_process_and_ends_it(
    database: ClickHouseManager, settings: Settings, receiver: Receiver, tmp_path: Path
) -> None:
    with (
        GatewayThread(Gateway(Market())) as thread,
        command(
            tmp_path,
            ALERT_URLS=receiver.address,
            CLICKHOUSE_HOST=settings.clickhouse_host,
            CLICKHOUSE_PORT=settings.clickhouse_port,
            IBKR_PORT=thread.gateway.port,
        ) as newshead,
    ):
        pid = int(newshead.shows(r"Push started, pid=(\d+)")[1])
        newshead.shows("Alerts are sent to json")
        alert(database, "ABCD")
        until(lambda: receiver.titles == _first("ABCD"), "the message")
        assert newshead.stop() == EXIT_OK
        until(lambda: not alive(pid), "the end of the push")
        assert TOKEN not in newshead.text()
        assert "Traceback" not in newshead.text()


def test_with_the_embedded_engine_newshead_sends_by_itself(
    receiver: Receiver, tmp_path: Path
) -> None:
    manager = ClickHouseManager(Settings(clickhouse_path=tmp_path / "data" / "clickhouse"))
    manager.connect()
    manager.create_tables()
    rate(manager, "ABCD", "BUY", detected_at=datetime.now(UTC))
    manager.close()
    market = Market([Trade(step, "ABCD", 2 + step / 20, 100) for step in range(60)])
    with (
        GatewayThread(Gateway(market)) as thread,
        command(
            tmp_path,
            "--keep-session",
            ALERT_URLS=f"nothing://x {receiver.address}",
            IBKR_PORT=thread.gateway.port,
        ) as newshead,
    ):
        until(lambda: receiver.messages, "the message")
        assert newshead.stop() == EXIT_OK
        assert "Traceback" not in newshead.text()
    assert re.fullmatch(r"ALERT 3: ABCD \$\d\.\d{4}", receiver.titles[0])
    assert "\nABCD in the news" in receiver.messages[0][2]


def by_hand(folder: Path, *arguments: str, **variables: str) -> tuple[int, str]:
    """`python -m dashboard.notify` to its end: exit code and output."""
    done = subprocess.run(
        [sys.executable, "-m", "dashboard.notify", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(PROJECT)} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout


def test_a_test_message_goes_to_all_addresses_and_says_which_failed(
    make_receiver: Callable[[], Receiver], tmp_path: Path
) -> None:
    good, bad = make_receiver(), make_receiver()
    bad.status = 404
    code, text = by_hand(tmp_path, "--test", ALERT_URLS=good.address)
    assert (code, text) == (EXIT_OK, "json (address 1 of ALERT_URLS): sent\n")
    addresses = f"{bad.address} nothing://{TOKEN} {good.address}"
    code, text = by_hand(tmp_path, "--test", ALERT_URLS=addresses)
    assert code == EXIT_FAILED
    assert [line.split(" (address ")[1][0] for line in text.splitlines()] == ["1", "2", "3"]
    assert "failed: Failed to send JSON" in text.splitlines()[0]
    assert "error=404" in text.splitlines()[0]
    assert text.splitlines()[2].endswith(": sent")
    assert good.titles == ["newshead: test"] * 2
    assert TOKEN not in text


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({}, "ALERT_URLS names nobody"),
        ({"ALERT_URLS": "json://x"}, "CLICKHOUSE_HOST"),
        ({"ALERT_URLS": f"nothing://{TOKEN}", "CLICKHOUSE_HOST": "127.0.0.1"}, "names no service"),
    ],
)
def test_what_cannot_work_is_one_sentence_and_exit_code_2(
    tmp_path: Path, variables: dict[str, str], told: str
) -> None:
    code, text = by_hand(tmp_path, **variables)
    assert code == EXIT_MISCONFIGURED
    [line] = [line for line in text.splitlines() if line.startswith("python -m dashboard.notify:")]
    assert told in line
    assert "Traceback" not in text
    assert TOKEN not in text
