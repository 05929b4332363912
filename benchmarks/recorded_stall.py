"""The longest stall of the monitor's event loop while all of it is recorded; see `loop_stall`."""

from benchmarks import loop_stall
from benchmarks.figures import Figure


def measure(quick: bool) -> list[Figure]:
    """As loop_stall."""
    return loop_stall.measure(quick, record=True)
