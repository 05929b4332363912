"""TWS's codes as they come on one connection: the line for each, and how loud it is.

No I/O, no clock and no log: the caller hands in `now` (monotonic seconds), and logs.
"""

import logging
import math
from collections.abc import Hashable
from typing import NamedTuple

from newshead.tws.codes import Code, Reaction, meaning
from newshead.tws.farms import farm_name


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
        # When each line was told; by code, and by the ticker or the farm that it names.
        self._told_at: dict[tuple[Hashable, str], float] = {}

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
        code = meaning(number, text, of_request=of_request)
        names_ticker = "{ticker}" in code.line
        if names_ticker:
            subject = ticker
        else:
            subject = farm_name(text) if code.reaction is Reaction.FARM_AWAY else ""
        notice = self.about(code, (number, subject), ticker, text, now)
        # About a request that is over there is no ticker left to name.
        over = not ticker and names_ticker
        return notice._replace(level=logging.DEBUG) if over else notice

    def about(
        self, code: Code, told: tuple[Hashable, str], ticker: str, text: str, now: float
    ) -> Notice:
        """Return what a row of the table of codes means; `told` names what it tells about."""
        again = now - self._told_at.get(told, -math.inf) < code.again_s
        if not again:
            self._told_at[told] = now
        level = logging.DEBUG if again else code.level
        return Notice(code.reaction, level, self.line(code.line, ticker, text))

    def line(self, template: str, ticker: str, text: str = "") -> str:
        """Return a line of the table of codes, filled in."""
        return template.format(
            ticker=ticker,
            host=self._host,
            port=self._port,
            client_id=self._client_id,
            text=" ".join(str(text).split()),
        )
