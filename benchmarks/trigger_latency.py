"""From a trigger file in place to the request for market data on the wire.

The price monitor is a process of its own, and so sees the file as it would
another program's. The time runs from before the file is renamed into place to
the moment the request is read by the gateway.
"""

import tempfile
import time
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from statistics import quantiles
from typing import Final

from benchmarks.figures import Figure, Target
from benchmarks.parts import running, subscriptions, until
from newshead.monitor.triggers import TriggerFolder
from newshead.tws.wire import MAX_SENDS_AT_ONCE, MAX_SENDS_PER_S
from simulator import Gateway, GatewayThread, Market

ROUNDS: Final = 300
AT_ONCE: Final = 50
BURSTS: Final = 8
# After a burst, until as many messages may go out at once as at first.
REST_S: Final = 2.0
# The original newshead waits for its next cycle: its average and its worst (issue 5).
ORIGINAL_MEAN_MS: Final = 1200.0
ORIGINAL_WORST_MS: Final = 1900.0
P50, P99 = Target(5), Target(20)


def measure(quick: bool) -> list[Figure]:
    """The latency of single triggers and of 50 at once."""
    singles = [f"S{number}" for number in range(20 if quick else ROUNDS)]
    bursts = [
        [f"{chr(ord('A') + burst)}B{number}" for number in range(AT_ONCE)]
        for burst in range(1 if quick else BURSTS)
    ]
    gateway = Gateway(Market(symbols=["WARM", *singles, *chain.from_iterable(bursts)]))
    with (
        tempfile.TemporaryDirectory(prefix="newshead-latency-") as name,
        GatewayThread(gateway),
        running(Path(name), gateway.port),
    ):
        folder = Path(name) / "triggers"
        until(lambda: gateway.requests, "the connection")
        _answered(gateway, folder, ["WARM"])
        alone = []
        for number, ticker in enumerate(singles):
            # At changing moments of the cycle, and below the pace of messages.
            time.sleep(0.04 + 0.0037 * (number % 17))
            alone += _answered(gateway, folder, [ticker])
        first, late = [], []
        for burst in bursts:
            time.sleep(REST_S)
            together = _answered(gateway, folder, burst)
            first += together[:MAX_SENDS_AT_ONCE]
            paced = enumerate(together[MAX_SENDS_AT_ONCE:], start=1)
            late += [latency - place / MAX_SENDS_PER_S * 1000 for place, latency in paced]
    original = "original newshead, mean"
    worst = "original newshead, worst"
    return [
        Figure("trigger to request, p50", _p(50, alone), "ms", original, ORIGINAL_MEAN_MS, P50),
        Figure("trigger to request, p99", _p(99, alone), "ms", worst, ORIGINAL_WORST_MS, P99),
        Figure("50 at once, the first 10, p50", _p(50, first), "ms", target=P50),
        Figure("50 at once, the first 10, p99", _p(99, first), "ms", target=P99),
        Figure("50 at once, the others behind their pace, p99", _p(99, late), "ms", target=P99),
    ]


def _answered(gateway: Gateway, folder: Path, tickers: Sequence[str]) -> list[float]:
    """Puts triggers into the folder; the milliseconds until each one's request came."""
    aside = TriggerFolder(folder.parent / "aside")
    files = {ticker: aside.write(ticker) for ticker in tickers}
    before = len(subscriptions(gateway))
    placed = {}
    for ticker, file in files.items():
        placed[ticker] = time.monotonic()
        file.rename(folder / file.name)
    until(lambda: len(subscriptions(gateway)) == before + len(tickers), "a subscription")
    return [
        (request.at - placed[request.symbol]) * 1000 for request in subscriptions(gateway)[before:]
    ]


def _p(percent: int, values: Sequence[float]) -> float:
    return quantiles(values, n=100, method="inclusive")[percent - 1]
