"""The page of newshead: a browser sees the session, its charts and its alerts.

It reads a ClickHouse server (CLICKHOUSE_HOST). With the embedded engine newshead
itself starts it: run_system.py --dashboard.
"""

import argparse
import asyncio
import logging
import os
import socket
import sys
from collections.abc import Sequence

from dashboard.server import listen, serve
from newshead.core.parts import PAGE, Part, PartState
from newshead.logs import configure_logging
from newshead.process import (
    EXIT_MISCONFIGURED,
    EXIT_OK,
    CommandLine,
    collect_seldom,
    pulsing,
    until_stopped,
)
from newshead.proxies import outside_of, settle_proxies
from newshead.settings import ConfigurationError, Settings

# Not __name__, which is __main__ here.
logger = logging.getLogger("dashboard")


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the page until it is told to stop; return the exit code."""
    command = CommandLine(
        prog="python -m dashboard",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_supervision()
    command.add_argument(
        "--listener",
        type=int,
        metavar="FD",
        help="set by newshead's demo: the descriptor of a socket that listens",
    )
    options = command.parse_args(arguments)
    try:
        settings = Settings.from_environment(os.environ if options.supervised else None)
        settle_proxies(os.environ, outside_of(settings))
        # newshead owns the file, where it runs in the same folder.
        configure_logging(settings.log_folder, rotate=False)
        if settings.embedded:
            raise ConfigurationError(
                "The embedded database can be read by newshead alone: start the page with "
                "run_system.py --dashboard, or set CLICKHOUSE_HOST."
            )
        given = options.listener
        listener = listen(settings) if given is None else socket.socket(fileno=given)
    except ConfigurationError as problem:
        if options.supervised:
            logger.error("%s", problem)
        else:
            print(f"{command.prog}: {problem}", file=sys.stderr)
        return EXIT_MISCONFIGURED
    collect_seldom()
    asyncio.run(
        until_stopped(_serve(settings, listener, options.pulse), with_parent=options.supervised)
    )
    return EXIT_OK


async def _serve(settings: Settings, listener: socket.socket, pulse: int | None) -> None:
    async with pulsing(pulse, Part(PAGE, PartState.OK).line):
        await serve(settings, listener)


if __name__ == "__main__":
    sys.exit(main())
