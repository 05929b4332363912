"""Memory over millions of ticks: what the process's peak grows by once it has run in.

Every tick is a trade, and they come so fast that the buffer, drained every 2 s, is
full each time: the peak is that of a flood.
"""

import logging
import resource
import sys
from typing import Final

from ibapi.ticktype import TickTypeEnum

from benchmarks.figures import Figure, Target
from benchmarks.ticks import FIRST_ID, HOST, PROTOBUF, Block, Course, feeder
from ibkr_client import IBKRClient
from simulator.encode import Encoder

TICKS: Final = 5_000_000
QUICK_TICKS: Final = 50_000
# Part of the ticks, after which it has run in.
RUN_IN: Final = 0.2
TICKERS: Final = [f"T{number}" for number in range(10)]
TRADES_A_BLOCK: Final = 500


def measure(quick: bool) -> list[Figure]:
    """The growth over 5 million ticks."""
    # The connection's end would be a warning, and so would what the buffer gives up.
    logging.getLogger("ibkr_client").setLevel(logging.ERROR)
    ticks = QUICK_TICKS if quick else TICKS
    with feeder() as orders:
        course = Course(orders, PROTOBUF, _trades(), ticks // TRADES_A_BLOCK)
        growth_mb = _growth_mb(course, ticks)
    return [Figure(f"memory over {ticks:,} ticks", growth_mb, "MB", target=Target(5))]


def _trades() -> Block:
    encoder = Encoder(PROTOBUF)
    messages = [
        encoder.tick_price(
            FIRST_ID + number % len(TICKERS), TickTypeEnum.LAST, 5 + number / 64, str(100 + number)
        )
        for number in range(TRADES_A_BLOCK)
    ]
    return Block(b"".join(messages), len(messages), len(messages))


def _growth_mb(course: Course, ticks: int) -> float:
    client = IBKRClient(HOST, course.port, 1, price_callback=course.trade)
    if not client.connect_and_run():
        raise RuntimeError(str(client.failure))
    client.update_subscriptions(set(TICKERS))
    peaks_mb: list[float] = []

    def take() -> None:
        client.get_and_clear_buffer()
        if course.trades >= RUN_IN * ticks:
            peaks_mb.append(_peak_mb())

    course.begin()
    course.drain(take)
    client.disconnect()
    return peaks_mb[-1] - peaks_mb[0]


def _peak_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)
