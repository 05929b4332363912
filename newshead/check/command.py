"""The command: every check at once, and what newshead tells of itself where it runs."""

import asyncio
import logging
import os
import socket
import sys
from pathlib import Path

from newshead import __version__
from newshead.check import machine, news
from newshead.check.database import database
from newshead.check.finding import Finding, Verdict, failed, off, ok, shown
from newshead.check.tws import tws
from newshead.core.parts import PartState, newest
from newshead.database.connection import DATABASE_ERRORS, Database, one_line
from newshead.database.http import readers_environment
from newshead.database.queries import told_parts
from newshead.loop import off_loop
from newshead.process import EXIT_FAILED, EXIT_OK, until_stopped
from newshead.proxies import outside_of, settle_proxies
from newshead.settings import ConfigurationError, Settings, given_variables


def main(settings: Settings, *, running: bool, send: bool) -> int:
    """Check and print what was found; return the exit code.

    Parameters
    ----------
    running
        Whether newshead runs in this folder: then nothing is connected to but the database.
    send
        Whether messages are sent and a rating is paid for.

    Raises
    ------
    ConfigurationError
        A proxy is of no use.
    """
    settle_proxies(os.environ, outside_of(settings, news=True, rating=True, ticker_list=True))
    # Each finding says what the log would.
    logging.getLogger().addHandler(logging.NullHandler())
    findings: list[Finding] = []

    async def check() -> None:
        findings.extend(
            await off_loop(told, settings) if running else await tried(settings, send=send)
        )

    _show(f"newshead {__version__}, settings (those not shown are empty):\n")
    for line in machine.effective(settings):
        _show(f"  {line}")
    _show(
        "\nnewshead runs in this folder; its own state:\n" if running else "\nTrying each part:\n"
    )
    asyncio.run(until_stopped(check()))
    for finding in findings:
        _show(shown(finding))
    bad = sum(finding.verdict is Verdict.FAILED for finding in findings)
    if findings:
        _show("\nAll that is configured works." if not bad else f"\n{bad} to mend.")
    return EXIT_OK if findings and not bad else EXIT_FAILED


def _show(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def tried(settings: Settings, *, send: bool) -> list[Finding]:
    """Try every part at once; return what was found, in the order of a start."""
    (clock, store, listed), (gateway, sources, rating, push) = await asyncio.gather(
        asyncio.gather(
            machine.clock(settings), off_loop(database, settings), news.listed(settings)
        ),
        asyncio.gather(
            off_loop(tws, settings),
            news.sources(settings),
            news.rating(settings, send=send),
            news.push(settings, send=send),
        ),
    )
    return [
        machine.libraries(),
        machine.variables(os.environ),
        machine.folders(settings),
        clock,
        *gateway,
        store,
        *sources,
        *rating,
        listed,
        *push,
        machine.page_port(settings),
        machine.metrics_port(settings),
    ]


def told(settings: Settings) -> list[Finding]:
    """Return what the newshead of this folder tells of its parts. Blocks."""
    if settings.embedded:
        served = readers_environment(settings)
        if not served:
            return [failed("newshead", "It is starting or ending: try again in a moment.")]
        settings = Settings.from_environment(given_variables() | served)
    connection = Database(settings)
    try:
        connection.connect()
        now, rows = told_parts(connection, socket.gethostname(), str(Path.cwd()))
    except (*DATABASE_ERRORS, ConfigurationError) as problem:
        return [failed("database", one_line(problem))]
    finally:
        connection.close()
    if not rows:
        return [failed("newshead", "It has told of no part yet.")]
    found = []
    for part in newest(rows, now):
        held_s = max(0, round((now - part.since).total_seconds()))
        text = f"{part.state.value} for {held_s} s. {part.reason}"
        match part.state:
            case PartState.OK:
                found.append(ok(part.name, text))
            case PartState.OFF:
                found.append(off(part.name, part.reason))
            case _:
                found.append(failed(part.name, text))
    return found
