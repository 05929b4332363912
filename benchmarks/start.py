"""From the connection at a start to the subscriptions of 100 active tickers.

The reference is the time that the pace of messages to TWS takes by itself.
"""

import tempfile
from pathlib import Path
from typing import Final

from benchmarks.figures import Figure, Target
from benchmarks.parts import running, subscriptions, until
from clickhouse_manager import ClickHouseManager
from newshead.settings import Settings
from newshead.tws.wire import MAX_SENDS_AT_ONCE, MAX_SENDS_PER_S
from simulator import Gateway, GatewayThread, Market

TICKERS: Final = [f"S{number}" for number in range(100)]


def measure(quick: bool) -> list[Figure]:
    """The time to the first and to the last subscription."""
    tickers = TICKERS[:15] if quick else TICKERS
    gateway = Gateway(Market(symbols=tickers))
    with tempfile.TemporaryDirectory(prefix="newshead-start-") as name, GatewayThread(gateway):
        # Where the monitor looks for its database by itself.
        _break_news(Settings(clickhouse_path=Path(name) / Settings.clickhouse_path), tickers)
        with running(Path(name), gateway.port):
            until(lambda: len(subscriptions(gateway)) == len(tickers), "all subscriptions")
    requests = tuple(gateway.requests)
    asked = subscriptions(gateway)
    connected = next(request.at for request in requests if request.kind == "startApi")
    messages = requests.index(asked[-1]) + 1
    pace_s = max(0, messages - MAX_SENDS_AT_ONCE) / MAX_SENDS_PER_S
    first_ms = (asked[0].at - connected) * 1000
    last_s = asked[-1].at - connected
    return [
        Figure(f"start: connection to the first of {len(tickers)} tickers", first_ms, "ms"),
        Figure(
            f"start: connection to the last of {len(tickers)} tickers",
            last_s,
            "s",
            "the messages' pace",
            pace_s,
            Target(1.1, of_ratio=True),
        ),
    ]


def _break_news(settings: Settings, tickers: list[str]) -> None:
    manager = ClickHouseManager(settings)
    manager.connect()
    manager.create_tables()
    manager.client.insert(
        "News.breaking_news",
        [[ticker, ticker] for ticker in tickers],
        column_names=["ticker", "content_hash"],
    )
    manager.close()
