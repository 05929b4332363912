"""The words for what TWS says of a ticker besides its trades."""

from typing import Final

# IBKR's market data types; TWS serves live data unless asked for another.
LIVE: Final = 1
DELAYED: Final = 3
DATA_TYPES: Final = {LIVE: "live", 2: "frozen", DELAYED: "delayed", 4: "delayed frozen"}

# What tick 49 says while a ticker's trading is halted.
NOT_HALTED: Final = 0
HALT_REASONS: Final = {1: "news pending", 2: "volatility pause"}
