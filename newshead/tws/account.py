"""What an account's id and TWS's port tell about the trading: paper or live."""

from collections.abc import Sequence
from typing import Final

UNKNOWN: Final = "UNKNOWN"

# Ports as TWS and IB Gateway come; both let the user change them.
PAPER_PORTS: Final = (7497, 4002)
LIVE_PORTS: Final = (7496, 4001)


def is_paper(accounts: Sequence[str], port: int) -> bool | None:
    """Return whether the account is a paper one; None as long as nothing tells.

    Paper accounts' ids begin with D, live ones' with U or F. The port is a
    hint only, for a gateway that named no account.
    """
    return accounts[0].startswith("D") if accounts else paper_by_port(port)


def paper_by_port(port: int) -> bool | None:
    """Return whether the port is usually TWS's for paper trading; None for an unknown one."""
    return True if port in PAPER_PORTS else False if port in LIVE_PORTS else None


def masked(account: str) -> str:
    """Return an account's id, all but its last two characters masked."""
    return "*" * (len(account) - 2) + account[-2:]
