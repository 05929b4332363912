"""What TWS says of a ticker besides its trades, in words."""

from typing import Final

# IBKR's market data types; TWS serves live data unless asked for another.
LIVE: Final = 1
DELAYED: Final = 3
DATA_TYPES: Final = {LIVE: "live", 2: "frozen", DELAYED: "delayed", 4: "delayed frozen"}

# What tick 49 says while a ticker's trading is halted.
NOT_HALTED: Final = 0
HALT_REASONS: Final = {1: "news pending", 2: "volatility pause"}


def describe(halted: int, data_type: int) -> str:
    """Return what keeps a ticker from having new prices, in a few words; empty while it trades
    live."""
    if halted in HALT_REASONS:
        return f"halted ({HALT_REASONS[halted]})"
    if data_type != LIVE and data_type in DATA_TYPES:
        return f"{DATA_TYPES[data_type]} data"
    return ""
