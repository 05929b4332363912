#!/usr/bin/env python3
"""Tries the connection to TWS by hand: connects, subscribes one stock, shows its trades.

Where to is what .env says; exit code 0 only if trades came. No pytest test.
"""

import logging
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ibkr_client import get_ibkr_client
from newshead.core.tickers import parse_ticker
from newshead.process import CommandLine
from newshead.settings import ConfigurationError

# Neither newshead (10) nor tradehead (1) has it.
CLIENT_ID = 99
LOTS = (
    "If these sizes are a hundredth of TWS's own, untick 'Send market data in lots for US stocks "
    "for dual-mode API clients' in TWS (Global Configuration > API > Settings)."
)


def main() -> int:
    command = CommandLine(description=__doc__)
    command.add_argument("--ticker", default="AAPL", help="the stock (default AAPL)")
    command.add_argument("--seconds", type=float, default=10, help="how long (default 10)")
    command.add_argument("--port", type=int, help="TWS's socket port (default IBKR_PORT)")
    options = command.parse_args()
    logging.basicConfig(level=logging.INFO, format="  %(message)s")
    ticker = parse_ticker(options.ticker)
    if ticker is None:
        command.error(f"{options.ticker!r} is no ticker")

    try:
        client = get_ibkr_client(port=options.port, client_id=CLIENT_ID)
    except ConfigurationError as wrong:
        command.error(str(wrong))
    print(f"Connecting to {client.host}:{client.port} as client {CLIENT_ID} ...")
    if not client.connect_and_run():
        print("FAILED: no connection; the line above says why and what to do.")
        return 1
    print(f"Connected, {client.mode} account, next order id {client.next_order_id}.")

    client.subscribe_ticker(ticker)
    print(f"Waiting {options.seconds:g} s for trades of {ticker} ...")
    time.sleep(options.seconds)
    ticks = client.get_and_clear_buffer().get(ticker, [])
    problem = client.ticker_problems.get(ticker)
    client.disconnect_safely()
    if ticks:
        print(f"OK: {len(ticks)} trades of {ticker}, the last ones:")
        for tick in ticks[-3:]:
            print(f"  {tick['timestamp']:%H:%M:%S} UTC  ${tick['price']:.4f} x {tick['volume']}")
        print(LOTS)
        return 0
    print(f"FAILED: no trade of {ticker} in {options.seconds:g} s. {reason(problem)}")
    return 1


def reason(problem: str | None) -> str:
    """Return why no trades came, as far as can be known from here."""
    if problem is not None:
        return f"TWS says: {problem}"
    now = datetime.now(UTC).astimezone(ZoneInfo("America/New_York"))
    if now.weekday() >= 5 or not 4 <= now.hour < 20:
        return (
            f"The US market is closed: it is {now:%A %H:%M} in New York, and stocks trade there "
            "from 04:00 to 20:00, Monday to Friday."
        )
    return (
        "The market should be open: it may be a holiday, the stock may not be trading, or this is "
        "not the TWS you mean (compare the port and the account above)."
    )


if __name__ == "__main__":
    sys.exit(main())
