"""Push: tells the services in ALERT_URLS of each ticker's first alert and of a lost connection.

`python -m dashboard.notify` runs it beside newshead with a ClickHouse server;
`run_system.py` starts it where ALERT_URLS is set. `--test` sends a test message.

It reads ClickHouse and nothing of the monitor. Each service has a thread of its
own, so that none waits for another. An address may hold a token: it is named by
its kind and its place in ALERT_URLS only.
"""

import asyncio
import logging
import os
import queue
import re
import sys
import threading
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from apprise import Apprise, NotifyFormat, NotifyType

from dashboard import queries
from dashboard.feed import Reader
from newshead.database.connection import DATABASE_ERRORS, Database, one_line
from newshead.database.tables import StatusRow
from newshead.logs import configure_logging
from newshead.loop import off_loop
from newshead.outage import Outage
from newshead.process import EXIT_FAILED, EXIT_MISCONFIGURED, EXIT_OK, CommandLine, until_stopped
from newshead.proxies import outside_of, settle_proxies
from newshead.settings import ConfigurationError, Settings

# Not __name__, which is __main__ when this is the command.
logger = logging.getLogger("dashboard.notify")
# It names addresses.
logging.getLogger("apprise").setLevel(logging.CRITICAL)

POLL_S: Final = 0.4
END_S: Final = 1.0
# Alerts that are older when the push starts are no news to anybody.
MAX_AGE_AT_START_S: Final = 60
LOST_S: Final = 30.0
# Between attempts at a service that fails: from the first to the last, doubling.
FIRST_PAUSE_S: Final = 2.0
MAX_PAUSE_S: Final = 60.0
# A message that could not be sent for so long is given up, and the oldest beyond so many.
MAX_MESSAGE_AGE_S: Final = 600.0
MAX_WAITING: Final = 100


class Message(NamedTuple):
    """What the services are told; `made_at` is time.monotonic()."""

    title: str
    body: str
    kind: NotifyType
    made_at: float


class Service:
    """One address of ALERT_URLS and the thread that sends to it.

    Raises
    ------
    ConfigurationError
        It is no address that apprise knows.
    """

    def __init__(self, number: int, address: str) -> None:
        scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]{0,30}(?=://)", address)
        self.name = f"{scheme[0] if scheme else 'service'} (address {number} of ALERT_URLS)"
        plugin = Apprise.instantiate(address)
        if plugin is None:
            raise ConfigurationError(
                f"{self.name} is no address that apprise knows; see its list of services."
            )
        self._plugin = plugin
        self._waiting: queue.Queue[Message] = queue.Queue(MAX_WAITING)
        # Failures in a row.
        self._failures = 0
        # Messages given up: by whoever tells, by the thread that sends, and of both told of.
        self._pushed_out = 0
        self._expired = 0
        self._told_of = 0

    @property
    def unsent(self) -> int:
        """The number of messages that wait, or were given up since the service worked."""
        return self._waiting.unfinished_tasks + self._given_up

    @property
    def _given_up(self) -> int:
        return self._pushed_out + self._expired - self._told_of

    def start(self, stopping: threading.Event) -> None:
        """Send what it is told, in a daemon thread, until `stopping` is set."""
        threading.Thread(
            target=self._work, args=(stopping,), name=f"push {self.name}", daemon=True
        ).start()

    def tell(self, message: Message) -> None:
        """Put a message on its way. One caller; never waits."""
        if self._waiting.full():
            with suppress(queue.Empty):
                self._waiting.get_nowait()
                self._waiting.task_done()
                self._pushed_out += 1
        self._waiting.put_nowait(message)

    def send(self, message: Message) -> bool:
        """Send a message now; whether the service took it. Blocks."""
        try:
            return bool(
                self._plugin.notify(
                    body=message.body,
                    title=message.title,
                    notify_type=message.kind,
                    body_format=NotifyFormat.TEXT,
                )
            )
        except Exception as problem:
            # Not its text, which may hold the address.
            logger.debug("%s raised %s.", self.name, type(problem).__name__)
            return False

    def _work(self, stopping: threading.Event) -> None:
        while not stopping.is_set():
            with suppress(queue.Empty):
                self._deliver(self._waiting.get(timeout=END_S), stopping)
                self._waiting.task_done()

    def _deliver(self, message: Message, stopping: threading.Event) -> None:
        """Try until the service takes the message, or it is too old."""
        while time.monotonic() - message.made_at < MAX_MESSAGE_AGE_S:
            if self.send(message):
                if self._failures:
                    self._tell_recovery()
                return
            self._failures += 1
            if self._failures == 1:
                logger.warning(
                    "%s does not accept messages; each is retried for %.0f minutes.",
                    self.name,
                    MAX_MESSAGE_AGE_S / 60,
                )
            pause_s = min(MAX_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(self._failures - 1, 10))
            if stopping.wait(pause_s):
                return
        self._expired += 1

    def _tell_recovery(self) -> None:
        self._failures = 0
        given_up = self._given_up
        self._told_of += given_up
        logger.info("%s accepts messages again; %d were dropped.", self.name, given_up)


class ConnectionWatch:
    """Judge from the monitor's newest status whether the connection to IBKR is lost.

    Lost is every state but ready, and a status that is not renewed. Times that
    are handed in are time.monotonic().
    """

    def __init__(self, now: float) -> None:
        self._status: StatusRow | None = None
        self._renewed_at = now
        self._well_at = now
        # Since when, once it has been told.
        self._lost_since = ""

    def cannot_see(self, now: float) -> None:
        """Note that the database cannot be read, so nobody knows whether the status is renewed."""
        self._renewed_at = now

    def see(self, status: StatusRow | None, now: float) -> list[Message]:
        """Return what is to be told now."""
        if status != self._status:
            self._status, self._renewed_at = status, now
        silent = now - self._renewed_at > LOST_S
        if status is not None and status.ready and not silent:
            self._well_at = now
            if self._lost_since:
                return [self._back(status, now)]
        elif not self._lost_since and (silent or now - self._well_at > LOST_S):
            return [self._lost(status, now, silent=silent)]
        return []

    def _back(self, status: StatusRow, now: float) -> Message:
        text = f"{status.mode}: ready again. It was lost at {self._lost_since} UTC."
        self._lost_since = ""
        return Message("newshead: connection to IBKR is back", text, NotifyType.SUCCESS, now)

    def _lost(self, status: StatusRow | None, now: float, *, silent: bool) -> Message:
        since_s = now - (self._renewed_at if silent else self._well_at)
        since = datetime.now(UTC) - timedelta(seconds=since_s)
        self._lost_since = f"{since:%H:%M:%S}"
        if silent or status is None:
            text = (
                f"The price monitor has written no status since {self._lost_since} UTC: it has "
                "ended or hangs. No alert can come."
            )
        else:
            text = f"{status.mode}: {status.state} since {self._lost_since} UTC."
            if status.last_error:
                text += f" Last error: {status.last_error}"
        return Message("newshead: connection to IBKR is lost", text, NotifyType.FAILURE, now)


class AlertWatch:
    """Find each ticker's first alert of the session, once."""

    def __init__(self) -> None:
        self._told: Collection[str] | None = None

    def see(self, database: Database) -> list[Message]:
        """Return what is to be told now. Blocks; raises as `queries` does."""
        found = queries.first_alerts(database)
        new = [
            alert
            for alert in found
            if (
                alert.age_s <= MAX_AGE_AT_START_S
                if self._told is None
                else alert.ticker not in self._told
            )
        ]
        cards = queries.cards(database, [alert.ticker for alert in new])
        # A ticker of an earlier session may come again in this one.
        self._told = {alert.ticker for alert in found}
        by_ticker = {card.ticker: card for card in cards}
        return [alert_message(alert, by_ticker.get(alert.ticker)) for alert in reversed(new)]


def alert_message(alert: queries.FirstAlert, card: queries.Card | None) -> Message:
    """Return the message for a ticker's first alert, with what else is known of the ticker."""
    body = f"{alert.timestamp:%H:%M:%S} UTC"
    if card is not None:
        if card.alerts and card.alerts[0].change_pct is not None:
            body = f"{card.alerts[0].change_pct:+.2f} % in {card.alerts[0].seconds} s, {body}"
        body = f"{body}\n{' '.join(card.headline.split())}".strip()
    title = f"ALERT {alert.priority}: {alert.ticker} ${alert.price:.4f}"
    return Message(title, body, NotifyType.INFO, time.monotonic())


def services(addresses: Sequence[str]) -> list[Service]:
    """Return the services of ALERT_URLS; one that is none is one line in the log."""
    found = []
    for number, address in enumerate(addresses, 1):
        try:
            found.append(Service(number, address))
        except ConfigurationError as problem:
            logger.error("%s", problem)
    return found


async def watch(settings: Settings) -> None:
    """Tell the services what is to be told, in a thread of its own, until it is cancelled.

    Raises
    ------
    ConfigurationError
        ALERT_URLS names no service.
    """
    stopping = threading.Event()
    ended = asyncio.create_task(off_loop(run, settings, stopping))
    try:
        await asyncio.shield(ended)
    finally:
        stopping.set()
        await asyncio.wait({ended}, timeout=END_S)


def run(settings: Settings, stopping: threading.Event) -> None:
    """Do so until `stopping` is set. Blocks; raises as `watch`."""
    told = services(settings.alert_urls)
    if not told:
        raise ConfigurationError("ALERT_URLS names no service that apprise knows.")
    for service in told:
        service.start(stopping)
    logger.info("Alerts are sent to %s.", ", ".join(service.name for service in told))
    reader = Reader(settings)
    alerts, connection = AlertWatch(), ConnectionWatch(time.monotonic())
    outage = Outage()
    while not stopping.wait(POLL_S):
        try:
            _tell(told, reader.read(alerts.see))
            _tell(told, connection.see(reader.read(queries.status), time.monotonic()))
            if outage.ends():
                logger.info("ClickHouse can be read again; messages are sent again.")
        except DATABASE_ERRORS as problem:
            connection.cannot_see(time.monotonic())
            level = logging.ERROR if outage.begins() else logging.DEBUG
            logger.log(level, "No messages are sent until ClickHouse works: %s", one_line(problem))
        except Exception:
            logger.exception("Looking for messages to send failed; trying again.")
    # Before the connection's end, which may fail or hang.
    if unsent := sum(service.unsent for service in told):
        logger.warning("%d messages were not sent.", unsent)
    reader.close()


def _tell(told: Sequence[Service], messages: Sequence[Message]) -> None:
    for message in messages:
        for service in told:
            service.tell(message)


def test_message() -> Message:
    """Return the message that tries a service."""
    return Message("newshead: test", "Alerts come this way.", NotifyType.INFO, time.monotonic())


def send_test(settings: Settings) -> bool:
    """Send a test message to each address and print what came of it."""
    message = test_message()
    all_sent = True
    for number, address in enumerate(settings.alert_urls, 1):
        try:
            service = Service(number, address)
        except ConfigurationError as problem:
            sent, line = False, str(problem)
        else:
            sent = service.send(message)
            line = f"{service.name}: {'sent' if sent else 'failed'}"
        print(line)
        all_sent = all_sent and sent
    return all_sent


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the push or its test; return the exit code."""
    command = CommandLine(prog="python -m dashboard.notify", description=__doc__)
    command.add_argument("--test", action="store_true", help="send a test message to all addresses")
    command.add_argument(
        "--supervised", action="store_true", help="set by run_system.py: end with it"
    )
    options = command.parse_args(arguments)
    try:
        settings = Settings.from_environment()
        if not settings.alert_urls:
            raise ConfigurationError("ALERT_URLS names nobody to send to.")
        settle_proxies(os.environ, outside_of(settings))
        if options.test:
            return EXIT_OK if send_test(settings) else EXIT_FAILED
        if settings.embedded:
            raise ConfigurationError(
                "it needs a ClickHouse server (CLICKHOUSE_HOST); the embedded database belongs to "
                "run_system.py, which sends messages by itself."
            )
        configure_logging(settings.log_folder, rotate=False)
        asyncio.run(until_stopped(watch(settings), with_parent=options.supervised))
    except ConfigurationError as problem:
        if options.supervised:
            logger.error("%s", problem)
        else:
            print(f"{command.prog}: {problem}", file=sys.stderr)
        return EXIT_MISCONFIGURED
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
