"""`python -m simulator.ratings`: the rating service as a command of its own."""

import asyncio
import logging
import sys
from typing import Final

from simulator import command
from simulator.messages import MessagesServer, ScriptedRating

logger = logging.getLogger("simulator.ratings")

# Of the built-in market and news: one of these stocks climbs, the other does not.
SAMPLE: Final = {
    "OCGN": ScriptedRating("BUY", "high", "An approval of its lead candidate."),
    "SOUN": ScriptedRating("BUY", "medium", "A large contract."),
    "PLUG": ScriptedRating("SELL", "high", "An offering dilutes its shareholders."),
}
DEFAULT_PORT: Final = 8766


def main() -> int:
    """Run a rating service until SIGINT or SIGTERM; return the exit code."""
    parser = command.Parser(
        prog="python -m simulator.ratings", description="A simulated rating service."
    )
    parser.add_argument(
        "--port", type=int, default=DEFAULT_PORT, help=f"default {DEFAULT_PORT}; 0 for a free one"
    )
    port = parser.parse_args().port
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        server = MessagesServer(SAMPLE, port)
    except (OSError, OverflowError) as error:
        parser.error(f"cannot listen on port {port}: {error}.")
    logger.info("Listening. url=%s", server.url)
    asyncio.run(command.serve(server))
    return 0


if __name__ == "__main__":
    sys.exit(main())
