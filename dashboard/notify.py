"""Push: tells the services in ALERT_URLS of each ticker's first alert and of what costs alerts.

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
from datetime import UTC, datetime
from typing import Final

from apprise import NotifyType

from dashboard import queries
from dashboard.cards import Card
from dashboard.losses import LossWatch
from dashboard.sent import SentMessages
from dashboard.services import Message, Service, push_part, services
from newshead.core.parts import ALERTS
from newshead.core.rule import percent
from newshead.core.times import NEW_YORK
from newshead.database.connection import DATABASE_ERRORS, Database, one_line
from newshead.database.shared import SharedConnection
from newshead.logs import configure_logging
from newshead.loop import off_loop
from newshead.outage import Outage
from newshead.process import (
    EXIT_FAILED,
    EXIT_MISCONFIGURED,
    EXIT_OK,
    CommandLine,
    pulsing,
    until_stopped,
)
from newshead.proxies import outside_of, settle_proxies
from newshead.settings import ConfigurationError, Settings

# Not __name__, which is __main__ when this is the command.
logger = logging.getLogger("dashboard.notify")
POLL_S: Final = 0.4
END_S: Final = 1.0
# Alerts that are older when the push starts are no news to anybody.
MAX_AGE_AT_START_S: Final = 60
SENT_FILE: Final = "push_sent.json"


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
    lines = [f"{alert.timestamp.astimezone(NEW_YORK):%H:%M:%S} New York time"]
    if card is not None:
        first = card.alerts[0] if card.alerts else None
        if first is not None and first.change_pct is not None:
            lines[0] = f"{percent(first.change_pct)} in {first.seconds} s, {lines[0]}"
        article = (first.article if first else None) or card.article
        if article is not None:
            rating = article.rating
            lines += [
                f"{rating.recommendation} {rating.confidence}: {article.explanation}",
                article.headline,
                article.url,
            ]
    body = "\n".join(filter(None, (" ".join(line.split()) for line in lines)))
    title = f"ALERT {alert.priority}: {alert.ticker} ${alert.price:.4f}"
    key = f"alert {alert.ticker} {alert.timestamp.isoformat()}"
    return Message(title, body, NotifyType.INFO, time.monotonic(), key)


async def watch(settings: Settings, pulse: int | None = None) -> None:
    """Tell the services what is to be told, in a thread of its own, until it is cancelled.

    Parameters
    ----------
    pulse
        Where signs of life go, see `pulsing`.

    Raises
    ------
    ConfigurationError
        ALERT_URLS names no service.
    """
    told = services(settings.alert_urls)
    if not told:
        raise ConfigurationError("ALERT_URLS names no service that apprise knows.")
    stopping = threading.Event()
    ended = asyncio.create_task(off_loop(run, settings, told, stopping))
    try:
        async with pulsing(pulse, lambda: push_part(told).line()):
            await asyncio.shield(ended)
    finally:
        stopping.set()
        await asyncio.wait({ended}, timeout=END_S)


def run(settings: Settings, told: Sequence[Service], stopping: threading.Event) -> None:
    """Do so until `stopping` is set. Blocks."""
    sent = SentMessages(settings.data_folder / SENT_FILE)
    for service in told:
        service.start(stopping, sent)
    logger.info("Alerts are sent to %s.", ", ".join(service.name for service in told))
    connection = SharedConnection(settings)
    watches = _Watches(sent, settings.alert_silence)
    while not stopping.wait(POLL_S):
        try:
            messages = watches.look(connection)
        except Exception:
            logger.exception("Looking for messages to send failed; trying again.")
            continue
        for message in messages:
            for service in told:
                service.tell(message)
    # Before the connection's end, which may fail or hang.
    if unsent := sum(service.unsent for service in told):
        logger.warning("%d messages were not sent.", unsent)
    connection.close()


class _Watches:
    """All that is looked at, again and again. Blocks."""

    def __init__(self, sent: SentMessages, silenced: Collection[str]) -> None:
        self._sent = sent
        self._alerts = None if ALERTS in silenced else AlertWatch()
        self._losses = LossWatch(sent.lost, silenced)
        self._mode = ""
        self._outage = Outage()

    def look(self, connection: SharedConnection) -> list[Message]:
        """Return what is to be told now."""
        found = self._read(connection)
        self._sent.set_lost(self._losses.lost)
        return found

    def _read(self, connection: SharedConnection) -> list[Message]:
        found: list[Message] = []
        try:
            if self._alerts is not None:
                found += connection.run(self._alerts.see)
            status = connection.run(queries.status)
            if status is not None:
                self._mode = status.mode
            now, rows = connection.run(queries.parts)
            found += self._losses.see(rows, now, self._mode)
        except DATABASE_ERRORS as problem:
            reason = one_line(problem)
            level = logging.ERROR if self._outage.begins() else logging.DEBUG
            logger.log(level, "No messages are sent until ClickHouse works: %s", reason)
            return found + self._losses.cannot_read(reason, datetime.now(UTC), self._mode)
        if self._outage.ends():
            logger.info("ClickHouse can be read again; messages are sent again.")
        return found


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
            reason = service.try_out(message)
            sent = not reason
            line = f"{service.name}: {'sent' if sent else f'failed: {reason}'}"
        print(line)
        all_sent = all_sent and sent
    return all_sent


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the push or its test; return the exit code."""
    command = CommandLine(prog="python -m dashboard.notify", description=__doc__)
    command.add_argument("--test", action="store_true", help="send a test message to all addresses")
    command.add_supervision()
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
        asyncio.run(until_stopped(watch(settings, options.pulse), with_parent=options.supervised))
    except ConfigurationError as problem:
        if options.supervised:
            logger.error("%s", problem)
        else:
            print(f"{command.prog}: {problem}", file=sys.stderr)
        return EXIT_MISCONFIGURED
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
