"""`python -m simulator`: a simulated TWS gateway as a command of its own."""

import asyncio
import logging
import sys
from pathlib import Path

from simulator.command import Parser, serve
from simulator.gateway import Gateway
from simulator.market import Market, MarketError
from simulator.wire import MAX_SERVER_VERSION


def main() -> int:
    """Run a gateway until SIGINT or SIGTERM; return the exit code."""
    parser = Parser(prog="python -m simulator", description="A simulated TWS gateway.")
    parser.add_argument("--port", type=int, default=7497, help="default 7497; 0 for a free one")
    parser.add_argument("--market", type=Path, help="CSV: seconds,ticker,price,size")
    parser.add_argument("--server-version", type=int, default=MAX_SERVER_VERSION, help="176 to 226")
    parser.add_argument("--account", default="DU1234567", help="default DU1234567")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        market = Market.from_csv(arguments.market) if arguments.market else Market.sample()
        gateway = Gateway(
            market,
            port=arguments.port,
            server_version=arguments.server_version,
            accounts=[arguments.account],
        )
        asyncio.run(serve(gateway))
    except MarketError as error:
        parser.error(str(error))
    except (OSError, OverflowError) as error:
        parser.error(f"cannot listen on port {arguments.port}: {error}.")
    except ValueError as error:
        parser.error(f"{error}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
