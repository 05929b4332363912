"""What the price monitor tells its tape besides its steps: rows, and what is in force."""

from collections.abc import Callable, Sequence
from typing import Any

from newshead import __version__
from newshead.database.store import Outbox
from newshead.database.tables import INSERTS, Row
from newshead.settings import Settings
from newshead.tape import Kind, Tape


class TapedOutbox(Outbox):
    """An outbox whose rows the tape is told of, and how many were given up."""

    def __init__(self, tape: Tape) -> None:
        super().__init__()
        self._tape = tape

    def add(self, rows: Sequence[Row], own_token: Callable[[Any], str] | None = None) -> None:
        if not rows:
            return
        table, _ = INSERTS[type(rows[0])]
        # One step: with what is given up, nothing may be left to store.
        with self._tape.step(Kind.ROWS, table, rows):
            before = self.given_up
            super().add(rows, own_token)
            if count := self.given_up - before:
                self._tape.note(Kind.GIVEN_UP, count)


def in_force(settings: Settings, *, wait: bool, slot_s: float) -> dict[str, Any]:
    """Return the settings that a price monitor's decisions rest on, in the variables' words."""
    roll = settings.session_roll
    return {
        "IBKR_MARKET_DATA_TYPE": str(settings.ibkr_market_data_type),
        "IBKR_REFERENCE": settings.ibkr_reference,
        "SESSION_ROLL": "off" if roll is None else roll.isoformat(),
        "wait": wait,
        "slot_s": slot_s,
        "newshead": __version__,
    }
