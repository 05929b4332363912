"""The live table on a terminal: what it says, and that the terminal is left as it was."""

import fcntl
import io
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from clickhouse_server import ClickHouseServer
from commands import log_in, ticking, until
from deadlines import DEADLINE_S
from rich.console import Console

from dashboard.cards import Article, Card, Told
from dashboard.screen import LogLines, View, screen
from newshead.core.rule import Outcome, PricePoint
from newshead.database.queries import Rating
from newshead.database.tables import StatusRow
from newshead.monitor.triggers import TriggerFolder
from simulator import Gateway

PROJECT = Path(__file__).resolve().parents[2]

NOW = datetime(2026, 11, 25, 14, 30, 20, tzinfo=UTC)
STATUS = StatusRow(
    timestamp=NOW - timedelta(seconds=2),
    state="ready",
    state_since=NOW - timedelta(seconds=75),
    mode="PAPER",
    delayed=False,
    account="*******67",
    active_tickers=1,
    cycles=12,
    ticks=40,
    rows=9,
    last_cycle_ms=31.4,
    kept_rows=0,
    reconnects=0,
    clock_difference_s=0.1,
    last_error="",
)


def card(ticker: str, headline: str = "A headline", recommendation: str = "HOLD") -> Card:
    begin = int(NOW.timestamp()) - 20
    prices = tuple(
        PricePoint(begin + 2 * n, usd, 100, recommendation)
        for n, usd in enumerate((2.0, 2.0, 2.0, 2.2))
    )
    return Card(
        ticker=ticker,
        article=Article(
            detected_at=NOW - timedelta(seconds=21),
            published_at=None,
            source="",
            headline=headline,
            url="",
            rating=Rating("neutral", recommendation, "low"),
            explanation="",
            analyzed_at=NOW - timedelta(seconds=20),
            rated=True,
        ),
        rating=Rating("neutral", recommendation, "low"),
        opened=NOW - timedelta(seconds=20),
        last_row=NOW - timedelta(seconds=14),
        outcome=Outcome(0, 4, 2, 10.0, 1, 1),
        prices=prices,
        alerts=(),
    )


def view(
    status: StatusRow | None = STATUS, cards: tuple[Card, ...] = (), problem: str = ""
) -> View:
    return View(NOW, time.monotonic(), status, cards, len(cards), problem)


def drawn(
    shown: View, log: LogLines | None = None, height: int = 24, width: int = 160
) -> list[str]:
    """The screen's lines, with the codes that steer a terminal."""
    terminal = Console(
        file=io.StringIO(), width=width, height=height, force_terminal=True, color_system="standard"
    )
    with terminal.capture() as captured:
        terminal.print(screen(shown, log or LogLines(), width, height))
    return captured.get().splitlines()


def plain(lines: list[str]) -> list[str]:
    return [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]


def test_a_card_and_the_monitors_state_stand_in_a_line_each() -> None:
    lines = drawn(view(cards=(card("ABCD"),)))
    assert "PAPER" in lines[0]
    assert "ready" in lines[0]
    assert "for 0:01:15, account *******67, 1 ticker, cycle 12 in 31 ms" in lines[0]
    [line] = [line for line in lines if "ABCD" in line]
    for text in ("A headline", "HOLD low", "2.20", "+10.0 %", "41 s", "held back: HOLD"):
        assert text in line


@pytest.mark.parametrize(
    ("shown", "told"),
    [
        (view(status=None), "No monitor has written its status yet."),
        (view(problem="Connection refused."), "The database cannot be read: Connection refused."),
        (
            view(status=STATUS._replace(timestamp=NOW - timedelta(seconds=16))),
            "NO SIGN OF THE MONITOR FOR",
        ),
        (view()._replace(failing=("ibkr: gone.", "rating: gone.")), "rating: gone."),
        (view(status=STATUS._replace(delayed=True)), "DELAYED DATA"),
        (view(status=STATUS._replace(kept_rows=7)), "7 rows kept"),
        (view(status=STATUS._replace(last_error="ClickHouse failed")), "last error ClickHouse"),
    ],
)
def test_what_is_wrong_stands_in_the_first_line(shown: View, told: str) -> None:
    assert told in drawn(shown)[0]


def test_a_hostile_headline_or_log_line_cannot_steer_the_terminal() -> None:
    log = LogLines()
    log.add("\x1b]0;title\x07\x1b[2Jlog")
    headline = "[red]\x1b[2J\x9b2J\u202egnp.exe[/red]"
    refused = card("EFGH")._replace(
        opened=None, told=Told(NOW, refused="No \x9bdata\x1b[2J for \u202ethis")
    )
    status = STATUS._replace(account="\x1b[2J67", state="\x9bready", last_error="\x1b]0;x\x07")
    shown = view(status, (card("ABCD", headline), refused), "\x1b[2J broken")
    text = "\n".join(drawn(shown, log))
    for code in ("\x1b[2J", "\x1b]0", "\x07", "\x9b", "\u202e"):
        assert code not in text
    # Nor is it taken for rich's own markup.
    assert "[red]" in text


def test_everything_fits_the_terminals_height_and_says_what_it_leaves_out() -> None:
    log = LogLines()
    for number in range(100):
        log.add(f"line {number}")
    many = tuple(card(f"T{number}") for number in range(50))
    lines = drawn(view(cards=many), log, height=24)
    assert len(lines) == 24
    assert any("36 more tickers" in line for line in lines)
    assert "line 99" in lines[-1]


def test_the_cycles_line_and_the_pages_address_have_a_line_of_their_own() -> None:
    log = LogLines()
    log.add("10:00:00 INFO dashboard.server: The page is at http://127.0.0.1:8180/")
    log.add("10:00:01 INFO price_checker: ALERT 1: ABCD $2.20")
    log.add("10:00:01 WARNING price_checker: 3 rows were kept")
    for number in range(500):
        log.add(f"10:00:02 INFO price_checker: Cycle {number}: 2 rows, 1 active tickers, 0.031 s.")
    lines = plain(drawn(view(cards=(card("ABCD"),)), log))
    standing = "http://127.0.0.1:8180/  Cycle 499: 2 rows, 1 active tickers, 0.031 s."
    assert standing in lines[1]
    assert "ALERT 1: ABCD" in lines[-2]
    assert "3 rows were kept" in lines[-1]
    assert sum("Cycle" in line for line in lines) == 1


def test_on_eighty_columns_the_reason_stands_in_full() -> None:
    held_back = card("ABCD", recommendation="BUY")
    over = card("EFGH")._replace(opened=NOW - timedelta(seconds=70))
    lines = plain(drawn(view(cards=(held_back, over)), width=80))
    for reason in (
        "held back: it rose before it was rated BUY",
        "over no alert, not rated BUY, best +10.0 % of 5 %",
    ):
        assert any(reason in line for line in lines)


def test_no_colour_stands_on_the_terminals_own_background() -> None:
    log = LogLines()
    for line in ("1 ERROR x: broken", "2 WARNING x: late", "3 INFO x: ALERT 1: ABCD"):
        log.add(line)
    alerted = card("ABCD", recommendation="BUY")._replace(outcome=Outcome(2, 4, 2, 10.0, 1, 1))
    status = STATUS._replace(kept_rows=7, last_error="failed", delayed=True, state="connecting")
    shown = view(status, (alerted, card("EFGH", recommendation="SELL")))
    codes = re.findall(r"\x1b\[([0-9;]+)m", "\n".join(drawn(shown, log)))
    parted = [set(map(int, code.split(";"))) for code in codes]
    coloured = [code for code in parted if code & {*range(30, 38), *range(90, 98)}]
    assert len(coloured) > 5
    for code in coloured:
        assert code & {*range(40, 48), *range(100, 108)}, code


class OnTerminal:
    """newshead on a terminal of its own, as a shell starts it, and all that it writes there."""

    def __init__(self, folder: Path, *arguments: str, **variables: object) -> None:
        self.text = ""
        self._master, self._slave = pty.openpty()
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 160, 0, 0))
        self.modes = termios.tcgetattr(self._slave)
        given = {name: str(value) for name, value in variables.items()}
        environment = dict(os.environ) | {"TERM": "xterm-256color"} | given
        # They would stand in for the terminal's own size.
        for name in ("COLUMNS", "LINES"):
            environment.pop(name, None)
        # In a session of its own, whose first open of a terminal makes it the controlling one:
        # there Ctrl-C is a signal, and so is the terminal's end, also where tests run by nohup.
        opening = (
            f"import os, signal, sys; os.close(os.open({os.ttyname(self._slave)!r}, os.O_RDWR)); "
            "signal.signal(signal.SIGHUP, signal.SIG_DFL); "
        )
        starting = "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
        self.process = subprocess.Popen(
            [sys.executable, "-c", opening + starting, str(PROJECT / "run_system.py"), *arguments],
            cwd=folder,
            env=environment,
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            start_new_session=True,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with suppress(OSError):
            while data := os.read(self._master, 65536):
                self.text += data.decode(errors="replace")

    def type(self, text: bytes) -> None:
        os.write(self._master, text)

    def shows(self, pattern: str) -> None:
        """Waits until the terminal was told `pattern`, steering codes aside."""
        deadline = time.monotonic() + DEADLINE_S
        while not re.search(pattern, re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.text)):
            assert time.monotonic() < deadline, self.text[-5000:]
            time.sleep(0.05)

    def hang_up(self) -> None:
        """Takes the terminal away."""
        os.close(self._slave)
        # Its reader keeps it open until a byte comes or it is closed for good.
        os.close(self._master)
        self._master = self._slave = -1

    def end(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        if self._slave >= 0:
            os.close(self._slave)
            os.close(self._master)

    def is_as_before(self) -> bool:
        """Whether the terminal's modes are the old ones, and the screen and cursor back."""
        codes = re.findall(r"\x1b\[\?(?:1049|25)[hl]", self.text)
        left, shown = "\x1b[?1049l" in codes, codes[-1] != "\x1b[?25l"
        return left and shown and termios.tcgetattr(self._slave) == self.modes


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with ticking() as gateway:
        yield gateway


@pytest.mark.parametrize("embedded", [True, False], ids=["embedded", "server"])
def test_the_table_shows_the_session_and_ctrl_c_restores_the_terminal(
    tmp_path: Path, gateway: Gateway, server: ClickHouseServer, embedded: bool
) -> None:
    database = {} if embedded else {"CLICKHOUSE_HOST": server.host, "CLICKHOUSE_PORT": server.port}
    command = OnTerminal(tmp_path, "--skip-list", IBKR_PORT=gateway.port, **database)
    try:
        command.shows("PAPER  ready for")
        TriggerFolder(tmp_path / "triggers").write("ABCD")
        # The card, and the log line of the price monitor's own process.
        command.shows(r"ABCD .*5\.0\d .* % of 5 %")
        command.shows("Trigger for ABCD: tracking it")
        command.type(b"\x03")
        assert command.process.wait(DEADLINE_S) == 0
        command.shows("Stats: ")
        assert command.is_as_before()
    finally:
        command.end()


def test_newshead_goes_on_without_its_terminal_and_ends_in_order_when_told(
    tmp_path: Path, gateway: Gateway
) -> None:
    command = OnTerminal(tmp_path, "--skip-list", IBKR_PORT=gateway.port)
    try:
        command.shows("PAPER  ready for")
        command.hang_up()
        until(lambda: "The terminal has gone" in log_in(tmp_path), lambda: log_in(tmp_path))
        TriggerFolder(tmp_path / "triggers").write("ABCD")
        until(lambda: ": 1 rows, 1 active tickers" in log_in(tmp_path), lambda: log_in(tmp_path))
        command.process.send_signal(signal.SIGTERM)
        assert command.process.wait(DEADLINE_S) == 0
    finally:
        command.end()
    assert "Stats: " in log_in(tmp_path)
    assert "Traceback" not in log_in(tmp_path)


def test_a_failure_stands_on_the_terminal_when_the_table_has_gone(
    tmp_path: Path, gateway: Gateway
) -> None:
    (tmp_path / "data").write_text("no folder")
    command = OnTerminal(tmp_path, "--skip-list", IBKR_PORT=gateway.port)
    try:
        assert command.process.wait(DEADLINE_S) == 2
        command.shows("CLICKHOUSE_PATH")
        assert command.is_as_before()
    finally:
        command.end()


@pytest.mark.parametrize(("option", "term"), [("--plain", "xterm-256color"), ("", "dumb")])
def test_plain_lines_come_where_they_are_asked_for_and_on_a_dumb_terminal(
    tmp_path: Path, gateway: Gateway, option: str, term: str
) -> None:
    options = filter(None, ("--skip-list", option))
    command = OnTerminal(tmp_path, *options, IBKR_PORT=gateway.port, TERM=term)
    try:
        command.shows("Price monitor initialized")
        assert "\x1b[" not in command.text
        command.process.send_signal(signal.SIGTERM)
        assert command.process.wait(DEADLINE_S) == 0
    finally:
        command.end()
