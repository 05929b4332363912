"""Every environment variable of newshead: name, default, meaning and check.

Variables come from the process's environment and, below it, from `.env` in
the folder newshead is started in. `.env.example` shows them all.
"""

import io
import math
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from datetime import time
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit

from dotenv.parser import parse_stream

from newshead.core.parts import KINDS
from newshead.core.tickers import parse_ticker

# Of news.
SOURCES: Final = ("benzinga", "alpaca", "wires")


# A name that differs by so many letters is meant.
MAX_EDITS: Final = 2


class ConfigurationError(Exception):
    """The user's configuration is wrong; the text says what and what to do."""


@dataclass(frozen=True)
class Settings:
    """What newshead was told. Each field with an environment name stands in `.env.example`.

    The folders have no variable: they lie in the folder newshead is started
    in, and only the demo and the tests put them elsewhere.
    """

    ibkr_host: str = "127.0.0.1"
    ibkr_port: int = 7497
    ibkr_client_id: int = 10
    ibkr_market_data_type: int = 1
    ibkr_reference: str = "SPY"
    follow_up: bool = False
    clickhouse_host: str = ""
    clickhouse_port: int = 0
    clickhouse_user: str = "default"
    clickhouse_password: str = field(default="", repr=False)
    clickhouse_secure: bool = False
    clickhouse_path: Path = Path("data/clickhouse")
    news_sources: tuple[str, ...] = ("benzinga",)
    benzinga_api_key: str = field(default="", repr=False)
    benzinga_stream_url: str = "wss://api.benzinga.com/api/v1/news/stream"
    benzinga_text_ping: bool = False
    benzinga_replay: bool = True
    alpaca_api_key: str = field(default="", repr=False)
    alpaca_api_secret: str = field(default="", repr=False)
    alpaca_stream_url: str = "wss://stream.data.alpaca.markets/v1beta1/news"
    wire_feeds: tuple[str, ...] = (
        "https://www.globenewswire.com/RssFeed/orgclass/1/feedTitle/"
        "GlobeNewswire%20-%20News%20about%20Public%20Companies",
        "https://www.prnewswire.com/rss/news-releases-list.rss",
        "https://www.accessnewswire.com/newsroom/api/rss",
    )
    wire_languages: tuple[str, ...] = ("en",)
    news_max_tickers: int = 10
    news_skip: tuple[str, ...] = ("halts", "trading-halts", "options", "block-trades", "movers")
    anthropic_api_key: str = field(default="", repr=False)
    anthropic_api_key2: str = field(default="", repr=False)
    anthropic_api_key3: str = field(default="", repr=False)
    anthropic_api_key4: str = field(default="", repr=False)
    anthropic_api_key5: str = field(default="", repr=False)
    anthropic_api_key6: str = field(default="", repr=False)
    anthropic_api_key7: str = field(default="", repr=False)
    anthropic_api_key8: str = field(default="", repr=False)
    anthropic_api_key9: str = field(default="", repr=False)
    anthropic_base_url: str = "https://api.anthropic.com"
    sentiment_model: str = "claude-haiku-5-5"
    hold_steering: bool = True
    ticker_list_csv: Path | None = None
    finviz_export_url: str = field(default="", repr=False)
    session_roll: time | None = time(4, 0)
    dashboard_host: str = "127.0.0.1"
    dashboard_port: int = 8180
    dashboard_password: str = field(default="", repr=False)
    alert_urls: tuple[str, ...] = field(default=(), repr=False)
    alert_silence: tuple[str, ...] = ()
    metrics_port: int = 0
    record_folder: Path | None = None
    record_max_gb: float = 10.0
    allow_unencrypted_keys: bool = False
    data_folder: Path = Path("data")
    trigger_folder: Path = Path("triggers")
    log_folder: Path = Path("logs")

    @property
    def embedded(self) -> bool:
        """Whether the embedded engine is used: no ClickHouse server is named."""
        return not self.clickhouse_host

    @property
    def anthropic_keys(self) -> tuple[str, ...]:
        """The keys for the sentiment analysis that are set, in their order."""
        first = self.anthropic_api_key
        further = (getattr(self, f"anthropic_api_key{number}") for number in range(2, 10))
        return tuple(key for key in (first, *further) if key)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str | None] | None = None) -> Self:
        """Read and check the variables.

        Parameters
        ----------
        environ
            The variables; by default the process's own over those in `.env`.

        Raises
        ------
        ConfigurationError
            A value cannot be what its variable needs; names the variable.
        """
        if environ is None:
            environ = given_variables()
        values: dict[str, Any] = {}
        for name in cls.variables():
            text = (environ.get(name) or "").strip()
            if text or (name in _EMPTY_IS_A_VALUE and environ.get(name) is not None):
                values[name.lower()] = _CHECKS.get(name, _text)(name, text)
        if "clickhouse_port" not in values:
            values["clickhouse_port"] = 8443 if values.get("clickhouse_secure") else 8123
        settings = cls(**values)
        for name in () if settings.allow_unencrypted_keys else _GIVEN_KEYS:
            _require_encryption(name, getattr(settings, name.lower()))
        return settings

    @classmethod
    def variables(cls) -> list[str]:
        """Return the names of all environment variables."""
        return [f.name.upper() for f in fields(cls) if f.name not in _WITHOUT_VARIABLE]


def given_variables() -> dict[str, str]:
    """Return newshead's variables as they are set now: the process's own over those in `.env`.

    Raises
    ------
    ConfigurationError
        `.env` cannot be read.
    """
    merged = {**_dotenv(), **os.environ}
    return {name: text for name in Settings.variables() if (text := merged.get(name)) is not None}


def misspelt(names: Iterable[str]) -> dict[str, str]:
    """Return those of `names` that are nearly a variable's, each with that variable's name."""
    variables = Settings.variables()
    found = {}
    for name in names:
        if name not in variables:
            near = min(variables, key=lambda variable: _edits(name.upper(), variable))
            if _edits(name.upper(), near) <= MAX_EDITS:
                found[name] = near
    return found


def _edits(one: str, other: str) -> int:
    """Return how many letters are to be put in, left out or changed to make one text the other;
    more than MAX_EDITS where that is so."""
    if abs(len(one) - len(other)) > MAX_EDITS:
        return MAX_EDITS + 1
    before = list(range(len(other) + 1))
    for row, letter in enumerate(one, 1):
        line = [row]
        for column, its in enumerate(other, 1):
            changed = before[column - 1] + (letter != its)
            line.append(min(before[column] + 1, line[-1] + 1, changed))
        before = line
    return before[-1]


def _dotenv() -> dict[str, str | None]:
    try:
        text = Path(".env").read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeError) as problem:
        raise ConfigurationError(f".env cannot be read as UTF-8 text: {problem}.") from problem
    found: dict[str, str | None] = {}
    # As it stands: a password may hold ${...}.
    for binding in parse_stream(io.StringIO(text)):
        lead = binding.original.string
        line = binding.original.line + lead[: len(lead) - len(lead.lstrip())].count("\n")
        if binding.error:
            raise ConfigurationError(f".env, line {line} cannot be read: it must be NAME=value.")
        if binding.key is not None:
            found[binding.key] = binding.value
            for name, near in misspelt([binding.key]).items():
                raise ConfigurationError(f".env, line {line}: {name} must be {near}.")
    return found


def _text(_name: str, text: str) -> str:
    return text


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10


def _port(name: str, text: str) -> int:
    if not (_is_number(text) and 1 <= int(text) <= 65535):
        raise ConfigurationError(f"{name} must be a port number from 1 to 65535, not {text!r}.")
    return int(text)


def _client_id(name: str, text: str) -> int:
    if not (_is_number(text) and int(text) < 2**31):
        raise ConfigurationError(f"{name} must be a whole number of 0 or more, not {text!r}.")
    return int(text)


def _market_data_type(name: str, text: str) -> int:
    if text not in ("1", "3"):
        raise ConfigurationError(f"{name} must be 1 (live) or 3 (delayed), not {text!r}.")
    return int(text)


def _ticker_or_nothing(name: str, text: str) -> str:
    ticker = parse_ticker(text)
    if text and ticker is None:
        raise ConfigurationError(f"{name} must be a ticker such as SPY, or empty, not {text!r}.")
    return ticker or ""


def _time_or_off(name: str, text: str) -> time | None:
    if text.lower() == "off":
        return None
    with suppress(ValueError):
        found = time.fromisoformat(text)
        if found.tzinfo is None:
            return found
    raise ConfigurationError(
        f"{name} must be a time of day in New York such as 04:00, without a zone, or off, not "
        f"{text!r}."
    )


def _above_0(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise ConfigurationError(f"{name} must be a number above 0, not {text!r}.")
    return value


def _switch(name: str, text: str) -> bool:
    switches = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    if text.lower() not in switches:
        raise ConfigurationError(f"{name} must be true or false, not {text!r}.")
    return switches[text.lower()]


def _url(*schemes: str) -> Callable[[str, str], str]:
    def check(name: str, text: str) -> str:
        try:
            parts = urlsplit(text)
            usable = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            # Not the text itself: it may hold a key.
            raise ConfigurationError(
                f"{name} must be an address that begins with {' or '.join(schemes)}://."
            )
        return text

    return check


def _tickers_at_most(name: str, text: str) -> int:
    # IBKR serves a hundred stocks at once.
    if not (_is_number(text) and 1 <= int(text) <= 100):
        raise ConfigurationError(f"{name} must be a whole number from 1 to 100, not {text!r}.")
    return int(text)


def _sources(name: str, text: str) -> tuple[str, ...]:
    names = tuple(text.lower().split())
    for each in names:
        if each not in SOURCES:
            known = ", ".join(SOURCES)
            raise ConfigurationError(f"{name} must name sources ({known}), not {each!r}.")
    return names


def _kinds(name: str, text: str) -> tuple[str, ...]:
    kinds = tuple(text.lower().split())
    for each in kinds:
        if each not in KINDS:
            known = ", ".join(KINDS)
            raise ConfigurationError(f"{name} must name kinds of messages ({known}), not {each!r}.")
    return kinds


def _words_or_off(name: str, text: str) -> tuple[str, ...]:
    return () if text.lower() == "off" else _words(name, text)


def _feeds(name: str, text: str) -> tuple[str, ...]:
    check = _url("https", "http")
    return tuple(check(name, address) for address in text.split())


def _require_encryption(name: str, address: str) -> None:
    """Refuse an address at another host to which a key would go readable for all in between."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "ws") or _is_this_machine(parts.hostname or ""):
        return
    raise ConfigurationError(
        f"{name} would send its key unencrypted to {parts.hostname}: use {parts.scheme}s://, or "
        "set ALLOW_UNENCRYPTED_KEYS=true."
    )


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _words(_name: str, text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _path(name: str, text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ConfigurationError(f"{name} names the home of nobody here: {text!r}.") from None


_WITHOUT_VARIABLE: Final = frozenset({"trigger_folder", "log_folder", "data_folder"})


def _engine_folder(name: str, text: str) -> Path:
    # The engine takes what follows for its own options, and puts the data elsewhere.
    if "?" in text:
        raise ConfigurationError(f"{name} must be a folder without a question mark, not {text!r}.")
    return _path(name, text)


# The addresses that are given keys.
_GIVEN_KEYS: Final = (
    "ALPACA_STREAM_URL",
    "BENZINGA_STREAM_URL",
    "ANTHROPIC_BASE_URL",
    "FINVIZ_EXPORT_URL",
)
_EMPTY_IS_A_VALUE: Final = frozenset({"IBKR_REFERENCE"})
_CHECKS: Final[dict[str, Callable[[str, str], Any]]] = {
    "IBKR_PORT": _port,
    "IBKR_CLIENT_ID": _client_id,
    "IBKR_MARKET_DATA_TYPE": _market_data_type,
    "IBKR_REFERENCE": _ticker_or_nothing,
    "FOLLOW_UP": _switch,
    "SESSION_ROLL": _time_or_off,
    "CLICKHOUSE_PORT": _port,
    "CLICKHOUSE_SECURE": _switch,
    "CLICKHOUSE_PATH": _engine_folder,
    "NEWS_SOURCES": _sources,
    "ALPACA_STREAM_URL": _url("wss", "ws"),
    "BENZINGA_STREAM_URL": _url("wss", "ws"),
    "BENZINGA_TEXT_PING": _switch,
    "BENZINGA_REPLAY": _switch,
    "WIRE_FEEDS": _feeds,
    "WIRE_LANGUAGES": _words,
    "NEWS_MAX_TICKERS": _tickers_at_most,
    "NEWS_SKIP": _words_or_off,
    "ANTHROPIC_BASE_URL": _url("https", "http"),
    "TICKER_LIST_CSV": _path,
    "FINVIZ_EXPORT_URL": _url("https", "http"),
    "DASHBOARD_PORT": _port,
    "ALERT_URLS": _words,
    "ALERT_SILENCE": _kinds,
    "METRICS_PORT": _port,
    "RECORD_FOLDER": _path,
    "RECORD_MAX_GB": _above_0,
    "HOLD_STEERING": _switch,
    "ALLOW_UNENCRYPTED_KEYS": _switch,
}
