"""Push: tells the services in ALERT_URLS of each ticker's first alert and of a lost connection.

`python -m dashboard.notify` runs it beside newshead with a ClickHouse server;
`run_system.py` starts it where ALERT_URLS is set. `--test` sends a test message.

It reads ClickHouse and nothing of the monitor.
"""

import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from apprise import NotifyType

from dashboard import queries
from dashboard.cards import Card
from dashboard.feed import Reader
from dashboard.sent import SentMessages
from dashboard.services import Message, Service, services
from newshead.core.rule import percent
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
POLL_S: Final = 0.4
END_S: Final = 1.0
# Alerts that are older when the push starts are no news to anybody.
MAX_AGE_AT_START_S: Final = 60
LOST_S: Final = 30.0
SENT_FILE: Final = "push_sent.json"
# What can be lost, in the words of the messages.
CONNECTION: Final = "connection to IBKR"
MARKET_DATA: Final = "market data"
DATABASE: Final = "database"


def lost_message(what: str, text: str, since: str) -> Message:
    """Return the message that something is lost."""
    title = f"newshead: {what} is lost"
    return Message(title, text, NotifyType.FAILURE, time.monotonic(), f"{what} lost {since}")


def back_message(what: str, text: str, since: str) -> Message:
    """Return the message that something lost is back."""
    title = f"newshead: {what} is back"
    body = f"{text} It was lost at {since} UTC."
    return Message(title, body, NotifyType.SUCCESS, time.monotonic(), f"{what} back {since}")


def _clock(ago_s: float) -> str:
    return f"{datetime.now(UTC) - timedelta(seconds=ago_s):%H:%M:%S}"


class ConnectionWatch:
    """Judge from the monitor's newest status whether the connection to IBKR is lost.

    Lost is every state but ready, and a status that is not renewed. Times that
    are handed in are time.monotonic().
    """

    def __init__(self, now: float, lost_since: str = "") -> None:
        """`lost_since` is when it was lost, if that was told before a restart."""
        self._status: StatusRow | None = None
        self._renewed_at = now
        self._well_at = now
        # Since when, once it has been told.
        self.lost_since = lost_since

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
            if self.lost_since:
                since, self.lost_since = self.lost_since, ""
                return [back_message(CONNECTION, f"{status.mode}: ready again.", since)]
        elif not self.lost_since and (silent or now - self._well_at > LOST_S):
            return [self._lost(status, now, silent=silent)]
        return []

    def _lost(self, status: StatusRow | None, now: float, *, silent: bool) -> Message:
        self.lost_since = _clock(now - (self._renewed_at if silent else self._well_at))
        if silent or status is None:
            text = (
                f"The price monitor has written no status since {self.lost_since} UTC: it has "
                "ended or hangs. No alert can come."
            )
        else:
            text = f"{status.mode}: {status.state} since {self.lost_since} UTC."
            if status.last_error:
                text += f" Last error: {status.last_error}"
        return lost_message(CONNECTION, text, self.lost_since)


class BlindWatch:
    """Tell that no market data comes although the connection stands, and its end."""

    def __init__(self, lost_since: str = "") -> None:
        self.lost_since = lost_since

    def see(self, reason: str | None) -> list[Message]:
        """Return what is to be told now; `reason` as `queries.blind` gives it."""
        if reason and not self.lost_since:
            self.lost_since = _clock(0)
            return [lost_message(MARKET_DATA, reason, self.lost_since)]
        if reason == "" and self.lost_since:
            since, self.lost_since = self.lost_since, ""
            return [back_message(MARKET_DATA, "It flows again.", since)]
        return []


class DatabaseWatch:
    """Tell that ClickHouse cannot be read for long, and that it can be again.

    Times are time.monotonic().
    """

    def __init__(self, now: float, lost_since: str = "") -> None:
        self._read_at = now
        self.lost_since = lost_since

    def fails(self, reason: str, now: float) -> list[Message]:
        """Return what is to be told of a reading that failed."""
        if self.lost_since or now - self._read_at <= LOST_S:
            return []
        self.lost_since = _clock(now - self._read_at)
        text = f"ClickHouse cannot be read since {self.lost_since} UTC: {reason} No alert can come."
        return [lost_message(DATABASE, text, self.lost_since)]

    def works(self, now: float) -> list[Message]:
        """Return what is to be told of a reading that succeeded."""
        self._read_at = now
        if not self.lost_since:
            return []
        since, self.lost_since = self.lost_since, ""
        return [back_message(DATABASE, "ClickHouse can be read again.", since)]


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


def alert_message(alert: queries.FirstAlert, card: Card | None) -> Message:
    """Return the message for a ticker's first alert, with what else is known of the ticker."""
    body = f"{alert.timestamp:%H:%M:%S} UTC"
    if card is not None:
        first = card.alerts[0] if card.alerts else None
        if first is not None and first.change_pct is not None:
            body = f"{percent(first.change_pct)} in {first.seconds} s, {body}"
        article = (first.article if first else None) or card.article
        body = f"{body}\n{' '.join(article.headline.split()) if article else ''}".strip()
    title = f"ALERT {alert.priority}: {alert.ticker} ${alert.price:.4f}"
    key = f"alert {alert.ticker} {alert.timestamp.isoformat()}"
    return Message(title, body, NotifyType.INFO, time.monotonic(), key)


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
    sent = SentMessages(settings.data_folder / SENT_FILE)
    for service in told:
        service.start(stopping, sent)
    logger.info("Alerts are sent to %s.", ", ".join(service.name for service in told))
    reader = Reader(settings)
    watches = _Watches(sent)
    while not stopping.wait(POLL_S):
        try:
            messages = watches.look(reader)
        except Exception:
            logger.exception("Looking for messages to send failed; trying again.")
            continue
        for message in messages:
            for service in told:
                service.tell(message)
    # Before the connection's end, which may fail or hang.
    if unsent := sum(service.unsent for service in told):
        logger.warning("%d messages were not sent.", unsent)
    reader.close()


class _Watches:
    """All that is looked at, again and again. Blocks."""

    def __init__(self, sent: SentMessages) -> None:
        now, lost = time.monotonic(), sent.lost
        self._sent = sent
        self._alerts = AlertWatch()
        self._connection = ConnectionWatch(now, lost.get(CONNECTION, ""))
        self._blind = BlindWatch(lost.get(MARKET_DATA, ""))
        self._database = DatabaseWatch(now, lost.get(DATABASE, ""))
        self._outage = Outage()

    def look(self, reader: Reader) -> list[Message]:
        """Return what is to be told now."""
        found = self._read(reader)
        lost = {
            CONNECTION: self._connection.lost_since,
            MARKET_DATA: self._blind.lost_since,
            DATABASE: self._database.lost_since,
        }
        self._sent.set_lost({what: since for what, since in lost.items() if since})
        return found

    def _read(self, reader: Reader) -> list[Message]:
        found: list[Message] = []
        try:
            found += reader.read(self._alerts.see)
            found += self._connection.see(reader.read(queries.status), time.monotonic())
            found += self._blind.see(reader.read(queries.blind))
        except DATABASE_ERRORS as problem:
            now = time.monotonic()
            self._connection.cannot_see(now)
            reason = one_line(problem)
            level = logging.ERROR if self._outage.begins() else logging.DEBUG
            logger.log(level, "No messages are sent until ClickHouse works: %s", reason)
            return found + self._database.fails(reason, now)
        if self._outage.ends():
            logger.info("ClickHouse can be read again; messages are sent again.")
        return found + self._database.works(time.monotonic())


def test_message() -> Message:
    """Return the message that tries a service."""
    now = time.monotonic()
    return Message("newshead: test", "Alerts come this way.", NotifyType.INFO, now, "test")


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
        "--supervised",
        action="store_true",
        help="set by run_system.py: end with it, and leave settings to it",
    )
    options = command.parse_args(arguments)
    try:
        settings = Settings.from_environment(os.environ if options.supervised else None)
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
