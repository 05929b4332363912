"""Whether TWS takes a connection and serves data on it."""

import time
from typing import Final

from ibkr_client import IBKRClient
from newshead.check.finding import Finding, failed, ok
from newshead.core.market import DATA_TYPES
from newshead.settings import Settings

# Neither newshead's own by default, nor tradehead's (1).
CLIENT_IDS: Final = (99, 98)
# Where no reference is set: it always has data.
TICKER: Final = "SPY"
DATA_WITHIN_S: Final = 8.0
LOOK_EVERY_S: Final = 0.05


def tws(settings: Settings) -> list[Finding]:
    """Return how the connection and its data fare. Blocks for up to 20 s."""
    client_id = next(each for each in CLIENT_IDS if each != settings.ibkr_client_id)
    client = IBKRClient(
        settings.ibkr_host,
        settings.ibkr_port,
        client_id,
        market_data_type=settings.ibkr_market_data_type,
    )
    if not client.connect_and_run():
        return [failed("TWS", str(client.failure))]
    where = f"{settings.ibkr_host}:{settings.ibkr_port}"
    account = f", account {client.masked_account}" if client.masked_account else ""
    connected = ok("TWS", f"{where}, {client.mode}{account}")
    try:
        return [connected, _data(client, settings.ibkr_reference or TICKER)]
    finally:
        client.disconnect_safely()


def _data(client: IBKRClient, ticker: str) -> Finding:
    part = "market data"
    if client.stale_reason:
        return failed(part, client.stale_reason)
    begun = time.monotonic()
    client.subscribe_ticker(ticker)
    while time.monotonic() - begun < DATA_WITHIN_S:
        if problem := client.get_ticker_problems().get(ticker):
            return failed(part, problem)
        if client.last_data_at >= begun:
            return ok(part, f"TWS serves {ticker}")
        time.sleep(LOOK_EVERY_S)
    known = client.get_conditions().get(ticker)
    if known is not None and not client.memory.conditions.counts(ticker):
        return failed(
            part,
            f"TWS serves {ticker} {DATA_TYPES[known.data_type]} data only: subscribe to its live "
            "data at IBKR, or set IBKR_MARKET_DATA_TYPE=3 for data 15 minutes late.",
        )
    return failed(
        part,
        f"TWS sent nothing for {ticker} within {DATA_WITHIN_S:.0f} s: see whether it shows "
        f"prices of {ticker} itself.",
    )
