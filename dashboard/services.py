"""The services that messages go to, each with a thread of its own, so that none waits for another.

An address may hold a token: it is named by its kind and its place in ALERT_URLS only.
"""

import hashlib
import logging
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple
from urllib.parse import quote, unquote

from apprise import Apprise, NotifyFormat, NotifyType

from dashboard.escaping import escaped
from dashboard.sent import SentMessages
from newshead.core.parts import PUSH, Part, PartState
from newshead.settings import ConfigurationError
from newshead.text import folded

logger = logging.getLogger(__name__)
# It names addresses.
logging.getLogger("apprise").setLevel(logging.CRITICAL)

LOOK_S: Final = 1.0
# Between attempts at a message that a service refuses: from the first to the last, doubling.
FIRST_PAUSE_S: Final = 2.0
MAX_PAUSE_S: Final = 60.0
# A message that could not be sent for so long is given up, and the oldest beyond so many.
MAX_MESSAGE_AGE_S: Final = 600.0
MAX_WAITING: Final = 100
# Of what a service says to a message that it does not take.
MAX_REASON: Final = 300
DETAILS: Final = ("Response Details", "Socket Exception")
# A shorter part of an address is no secret.
MIN_SECRET: Final = 5


class Message(NamedTuple):
    """What the services are told; `made_at` is time.monotonic(), `key` the same after a restart."""

    title: str
    body: str
    kind: NotifyType
    made_at: float
    key: str


@dataclass
class _Waiting:
    """A message on its way: how often the service refused it, and when it is tried again."""

    message: Message
    refusals: int = 0
    due_at: float = 0.0


class Service:
    """One address of ALERT_URLS and the thread that sends to it.

    Raises
    ------
    ConfigurationError
        It is no address that apprise knows.
    """

    def __init__(self, number: int, address: str) -> None:
        scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]{0,30}(?=://)", address)
        self._scheme = scheme[0].lower() if scheme else ""
        self.name = f"{scheme[0] if scheme else 'service'} (address {number} of ALERT_URLS)"
        # Its place in ALERT_URLS may change, and the address is nobody's to read.
        self.key = hashlib.sha256(address.encode()).hexdigest()[:16]
        self._address = address
        plugin = Apprise.instantiate(address)
        if plugin is None:
            raise ConfigurationError(
                f"{self.name} is no address that apprise knows; see its list of services."
            )
        self._plugin = plugin
        self._waiting: list[_Waiting] = []
        self._changed = threading.Condition()
        self._refuses = False
        # Messages given up, and how many of them were told of.
        self._given_up = 0
        self._told_of = 0

    @property
    def unsent(self) -> int:
        """The number of messages that wait, or were given up since the service worked."""
        with self._changed:
            return len(self._waiting) + self._given_up - self._told_of

    @property
    def refuses(self) -> bool:
        """Whether it does not accept messages."""
        return self._refuses

    def start(self, stopping: threading.Event, sent: SentMessages) -> None:
        """Send what it is told, in a daemon thread, until `stopping` is set."""
        threading.Thread(
            target=self._work, args=(stopping, sent), name=f"push {self.name}", daemon=True
        ).start()

    def tell(self, message: Message) -> None:
        """Put a message on its way. Any thread; never waits."""
        with self._changed:
            if len(self._waiting) >= MAX_WAITING:
                del self._waiting[0]
                self._given_up += 1
            self._waiting.append(_Waiting(message))
            self._changed.notify()

    def send(self, message: Message) -> bool:
        """Send a message now; whether the service took it. Blocks."""
        try:
            return bool(
                self._plugin.notify(
                    body=escaped(message.body, self._scheme),
                    title=escaped(message.title, self._scheme),
                    notify_type=message.kind,
                    body_format=NotifyFormat.TEXT,
                )
            )
        except Exception as problem:
            # Not its text, which may hold the address.
            logger.debug("%s raised %s.", self.name, type(problem).__name__)
            return False

    def try_out(self, message: Message) -> str:
        """Send a message now; return why the service did not take it, in its own words as far as
        it has any. Blocks."""
        said = _Said()
        library = logging.getLogger("apprise")
        library.addHandler(said)
        level = library.level
        library.setLevel(logging.DEBUG)
        try:
            if self.send(message):
                return ""
        finally:
            library.setLevel(level)
            library.removeHandler(said)
        text = said.text or "no reason was given."
        for secret in sorted(_secrets(self._address), key=len, reverse=True):
            text = text.replace(secret, "…")
        return folded(text, MAX_REASON)

    def _work(self, stopping: threading.Event, sent: SentMessages) -> None:
        while not stopping.is_set():
            if (waiting := self._next()) is None:
                continue
            message = waiting.message
            if sent.has(self.key, message.key):
                self._remove(waiting)
            elif self.send(message):
                sent.add(self.key, message.key)
                self._took(waiting)
            else:
                self._refused(waiting)

    def _next(self) -> _Waiting | None:
        """Return the oldest message that is due; wait for one for a moment."""
        with self._changed:
            now = time.monotonic()
            for waiting in [w for w in self._waiting if _is_old(w, now)]:
                self._waiting.remove(waiting)
                self._given_up += 1
            for waiting in self._waiting:
                if waiting.due_at <= now:
                    return waiting
            soonest = min((w.due_at - now for w in self._waiting), default=LOOK_S)
            self._changed.wait(min(LOOK_S, soonest))
        return None

    def _remove(self, waiting: _Waiting) -> bool:
        with self._changed:
            # It may have been pushed out meanwhile.
            if there := waiting in self._waiting:
                self._waiting.remove(waiting)
            return there

    def _took(self, waiting: _Waiting) -> None:
        was_there = self._remove(waiting)
        with self._changed:
            if not was_there:
                self._given_up -= 1
            if not self._refuses:
                return
            # What it refused before may pass as well now; what it refuses alone is tried on.
            again = [w for w in self._waiting if w.refusals]
            if waiting.refusals:
                for other in again:
                    other.due_at = 0.0
            if again:
                return
            self._refuses = False
            given_up, self._told_of = self._given_up - self._told_of, self._given_up
        logger.info("%s accepts messages again; %d were dropped.", self.name, given_up)

    def _refused(self, waiting: _Waiting) -> None:
        pause_s = min(MAX_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(waiting.refusals, 10))
        waiting.refusals += 1
        waiting.due_at = time.monotonic() + pause_s
        if not self._refuses:
            self._refuses = True
            logger.warning(
                "%s does not accept messages; each is retried for %.0f minutes.",
                self.name,
                MAX_MESSAGE_AGE_S / 60,
            )


class _Said(logging.Handler):
    """Hold what the library says of a message that one thread sends."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self._thread = threading.get_ident()
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread != self._thread:
            return
        line = record.getMessage()
        if record.levelno >= logging.WARNING or line.startswith(DETAILS):
            self.text = f"{self.text} {line}".strip()


def _secrets(address: str) -> set[str]:
    """Return what may be secret in an address: all between its marks."""
    parts = re.split(r"[/:@?&=#,]+", unquote(address))
    return {part for part in (*parts, *map(quote, parts)) if len(part) >= MIN_SECRET}


def push_part(told: Sequence[Service]) -> Part:
    """Return how the push fares."""
    refusing = [service.name for service in told if service.refuses]
    counts = {"services": len(told), "unsent": sum(service.unsent for service in told)}
    if not refusing:
        return Part(PUSH, PartState.OK, "", None, counts)
    state = PartState.LOST if len(refusing) == len(told) else PartState.DEGRADED
    reason = (
        f"{', '.join(refusing)}: no messages are accepted; try them by python -m dashboard.notify "
        "--test."
    )
    return Part(PUSH, state, reason, None, counts)


def _is_old(waiting: _Waiting, now: float) -> bool:
    return now - waiting.message.made_at >= MAX_MESSAGE_AGE_S


def services(addresses: Sequence[str]) -> list[Service]:
    """Return the services of ALERT_URLS; one that is none is one line in the log."""
    found = []
    for number, address in enumerate(addresses, 1):
        try:
            found.append(Service(number, address))
        except ConfigurationError as problem:
            logger.error("%s", problem)
    return found
