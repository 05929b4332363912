"""TWS's codes as they come on one connection: the line for each, and how loud it is.

No I/O, no clock and no log: the caller hands in `now` (monotonic seconds), and logs.
"""

import logging
import math
from typing import NamedTuple

from newshead.tws.codes import Reaction, meaning


class Notice(NamedTuple):
    """What to do about a code, and the line to log at a level."""

    reaction: Reaction
    level: int
    line: str


class Notices:
    """What was told on one connection; what is repeated too soon is for DEBUG only."""

    def __init__(self, host: str, port: int, client_id: int) -> None:
        self._host = host
        self._port = port
        self._client_id = client_id
        # When each line was told; by code, and by ticker where the line names it.
        self._told_at: dict[tuple[int, str], float] = {}

    def read(
        self, number: int, text: str, ticker: str, now: float, *, of_request: bool = True
    ) -> Notice:
        """Return what a code means.

        Parameters
        ----------
        number, text
            The code with TWS's words for it.
        ticker
            Whose request it is about; empty if there is none, or none any more.
        of_request
            Whether it is about a request.
        """
        code = meaning(number, text)
        names_ticker = "{ticker}" in code.line
        told = (number, ticker if names_ticker else "")
        again = now - self._told_at.get(told, -math.inf) < code.again_s
        if not again:
            self._told_at[told] = now
        # About a request that is over there is no ticker left to name.
        over = not ticker and names_ticker and of_request
        level = logging.DEBUG if again or over else code.level
        return Notice(code.reaction, level, self.line(code.line, ticker, text))

    def line(self, template: str, ticker: str, text: str = "") -> str:
        """Return a line of the table of codes, filled in."""
        return template.format(
            ticker=ticker or "IBKR",
            host=self._host,
            port=self._port,
            client_id=self._client_id,
            text=" ".join(str(text).split()),
        )
