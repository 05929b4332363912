"""What newshead needs of this machine: libraries, folders, ports, the clock, its settings."""

import logging
import os
import platform
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import Field, fields
from datetime import UTC, datetime, time
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from dashboard.server import address_of, listen
from newshead.check.finding import Finding, failed, off, ok
from newshead.database.connection import MAX_CLOCK_DIFFERENCE_S, MIN_FREE_BYTES, one_line
from newshead.settings import ConfigurationError, Settings, misspelt

# Those whose version makes a difference to what is reported of them.
LIBRARIES: Final = (
    *("nautilus-ibapi", "protobuf", "clickhouse-connect", "chdb"),
    *("websockets", "anthropic", "httpx2", "apprise"),
)
SECRET: Final = "********"  # noqa: S105
CLOCK_TIMEOUT_S: Final = 5.0
# Values that a variable has other words for.
WORDS: Final = {("session_roll", ""): "off", ("metrics_port", "0"): ""}


def libraries() -> Finding:
    """Return the versions of Python and of the libraries."""
    found, missing = [], []
    for name in LIBRARIES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        return failed(
            "Python", f"{', '.join(missing)} is missing: run `pip install -r requirements.txt`."
        )
    return ok("Python", f"{platform.python_version()}; {', '.join(found)}")


def folders(settings: Settings) -> Finding:
    """Return whether newshead may write where it works; makes none of the folders."""
    needed = [Path(), settings.trigger_folder, settings.log_folder]
    if settings.embedded:
        needed.append(settings.clickhouse_path)
    for folder in needed:
        # One that is missing is made at the start.
        present = next(each for each in (folder, *folder.absolute().parents) if each.exists())
        if not (present.is_dir() and os.access(present, os.W_OK | os.X_OK)):
            return failed(
                "folders", f"{folder.absolute()} cannot be written: start newshead elsewhere."
            )
    free = shutil.disk_usage(Path()).free
    if free < MIN_FREE_BYTES:
        return failed("folders", f"The disk of {Path().absolute()} is full: free some space.")
    return ok("folders", f"{Path().absolute()}, {free / 2**30:.1f} GiB free")


def variables(environ: Mapping[str, str]) -> Finding:
    """Return whether a variable of the environment is nearly one of newshead's."""
    if found := misspelt(environ):
        meant = ", ".join(f"{name} (is {near} meant?)" for name, near in found.items())
        return failed("variables", f"unknown and without effect: {meant}")
    return ok("variables", "none is misspelt")


def page_port(settings: Settings) -> Finding:
    """Return whether the page can be served."""
    try:
        with closing(listen(settings)) as listener:
            return ok("page", f"can be served at {address_of(listener)} (--dashboard)")
    except ConfigurationError as problem:
        return failed("page", str(problem))


def metrics_port(settings: Settings) -> Finding:
    """Return whether the metrics can be served."""
    port = settings.metrics_port
    if not port:
        return off("metrics", "not served (METRICS_PORT)")
    # Its library is for those who ask for it.
    from newshead.monitor.metrics import HOST

    try:
        with socket.create_server((HOST, port)):
            return ok("metrics", f"can be served on port {port}")
    except OSError as problem:
        return failed(
            "metrics",
            f"Port {port} cannot be served: {one_line(problem)} Set METRICS_PORT to a free port.",
        )


async def clock(settings: Settings) -> Finding:
    """Return whether this machine's clock is that of the rating service's server."""
    if not settings.anthropic_keys:
        return off("clock", "compared with the rating service's, which is not configured")
    import httpx2

    # It logs every request.
    for name in ("httpx2", "httpcore2"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        async with httpx2.AsyncClient(timeout=CLOCK_TIMEOUT_S) as client:
            before = datetime.now(UTC)
            answer = await client.head(settings.anthropic_base_url)
        there = parsedate_to_datetime(answer.headers["date"])
    except (httpx2.HTTPError, KeyError, ValueError) as problem:
        told = one_line(problem)
        return off("clock", f"not compared: the rating service tells no time ({told})")
    took_s = (datetime.now(UTC) - before).total_seconds()
    # Their clock tells whole seconds, of any moment since the question.
    ahead_s = (before - there).total_seconds() - 0.5 + took_s / 2
    if abs(ahead_s) - took_s / 2 - 0.5 > MAX_CLOCK_DIFFERENCE_S:
        way = "ahead" if ahead_s > 0 else "behind"
        return failed(
            "clock", f"{abs(ahead_s):.0f} s {way}: synchronise this machine's clock (NTP)"
        )
    return ok("clock", f"right within {MAX_CLOCK_DIFFERENCE_S:.0f} s")


def effective(settings: Settings) -> Iterator[str]:
    """Give the settings that are not empty as lines of `.env`, secrets masked."""
    for field in fields(settings):
        value = _spelt(getattr(settings, field.name))
        value = WORDS.get((field.name, value), value)
        if value and field.name.upper() in Settings.variables():
            yield f"{field.name.upper()}={_masked(field, value)}"


def _spelt(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case tuple():
            return " ".join(map(str, value))
        case time():
            return f"{value:%H:%M}"
        case None:
            return ""
    return str(value)


def _masked(field: "Field[object]", text: str) -> str:
    if not field.repr:
        return SECRET if text else ""
    return " ".join(_without_secrets(word) if "://" in word else word for word in text.split(" "))


def _without_secrets(address: str) -> str:
    """Return an address without what may be a secret in it: the user and the query."""
    parts = urlsplit(address)
    user, at, host = parts.netloc.rpartition("@")
    return urlunsplit(
        parts._replace(
            netloc=f"{SECRET if user else ''}{at}{host}", query=SECRET if parts.query else ""
        )
    )
