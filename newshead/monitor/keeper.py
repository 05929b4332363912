"""The connection to IBKR, kept: made anew when it is lost, and told of when no data can come."""

import asyncio
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from newshead.core.times import reconnect_pause_s
from newshead.monitor.clocks import elapsed_s
from newshead.monitor.sight import Change, Sight
from newshead.tws.durations import DURATIONS

if TYPE_CHECKING:
    from ibkr_client import IBKRClient

# It concerns every ticker, so it is told where traders look for it.
logger = logging.getLogger("price_checker")

CONNECTION_CHECK_S: Final = 0.25
SIGHT_CHECK_S: Final = 1.0
# Between attempts while nothing listens, and the first pause after an attempt
# that was accepted and then failed; those pauses double up to the maximum.
RETRY_S: Final = 3.0
MAX_RETRY_S: Final = 60.0


class ConnectionKeeper:
    """Keep the price monitor connected to IBKR, and say when it is blind. On the event loop."""

    def __init__(
        self,
        client: Callable[[], "IBKRClient | None"],
        reconnect: Callable[[], Awaitable[None]],
        changed: Callable[[], None],
        ready: asyncio.Event,
        stats: dict[str, float],
    ) -> None:
        """
        Parameters
        ----------
        client
            Gives the present client.
        reconnect
            Makes one attempt at a new connection, with a new client.
        changed
            Called when data can come no more, or can come again.
        ready
            Is set at the first connection.
        stats
            Where the new connections are counted.
        """
        self._client = client
        self._reconnect = reconnect
        self._changed = changed
        self._ready = ready
        self._stats = stats
        self._sight = Sight()
        # The begin of the present time without a connection.
        self._gap_began: datetime | None = None
        # The same by a clock that nobody sets.
        self._gap_began_s = 0.0

    async def keep(self, connected: Callable[[], bool]) -> None:
        """Connect again whenever the connection is lost.

        Raises
        ------
        GatewayError
            Trying again is no use until the user has acted.
        """
        failures = 0
        ready_at = steady_at = -math.inf
        while True:
            if connected():
                now = time.monotonic()
                if ready_at == -math.inf:
                    ready_at = now
                if now - ready_at >= RETRY_S:
                    failures = 0
                    steady_at = now
                self._end_gap()
                self._ready.set()
                await asyncio.sleep(CONNECTION_CHECK_S)
                continue
            self._begin_gap()
            _refuse_if_final(self._client())
            if time.monotonic() - ready_at < RETRY_S:
                # Lost as soon as it was there: that is a failed attempt.
                failures += 1
                await asyncio.sleep(_pause_s(failures, steady_at))
            ready_at = -math.inf
            await self._reconnect()
            client = self._client()
            _refuse_if_final(client)
            if client is not None and client.failure is not None:
                accepted = client.failure.accepted
                failures += accepted
                await asyncio.sleep(_pause_s(failures, steady_at) if accepted else RETRY_S)

    async def watch(self, active: Callable[[], int]) -> None:
        """Log when no data can come although so many tickers are active, and when it flows again.

        For ever.
        """
        while True:
            await asyncio.sleep(SIGHT_CHECK_S)
            now, client = time.monotonic(), self._client()
            reason = self.dark_reason
            change = self._sight.watch(
                now,
                client.last_answer_at if client is not None else -math.inf,
                awaited=bool(active()),
                cut=bool(reason),
                unserved=client is not None and client.connected and not client.serves_data,
            )
            if change is Change.LOST:
                logger.warning(
                    "BLIND: no data for %.0f s for any of %d active tickers: %s",
                    self._sight.dark_s(now),
                    active(),
                    reason,
                )
            elif change is Change.BACK:
                logger.warning("Market data is flowing again.")
            if change is not None:
                self._changed()

    @property
    def blind(self) -> bool:
        """Whether tickers are active and none of them gets data. Any thread."""
        return self._sight.blind

    @property
    def dark_reason(self) -> str:
        """Why no data can come; empty while it can. Any thread."""
        client = self._client()
        if client is None or not client.connected:
            return f"not connected to IBKR. {client.failure if client and client.failure else ''}"
        if client.stale_reason:
            return client.stale_reason
        if client.quiet_s > DURATIONS.heartbeat_s:
            return f"no message from TWS for {client.quiet_s:.0f} s on an open socket."
        if not client.serves_data:
            return "TWS answers but serves no market data, not even after new requests."
        return ""

    @property
    def tick_age_s(self) -> float | None:
        """The seconds since the newest data from IBKR; None if there was none. Any thread."""
        client = self._client()
        newest = max(self._sight.data_at, client.last_data_at if client is not None else -math.inf)
        return time.monotonic() - newest if newest > -math.inf else None

    def _begin_gap(self) -> None:
        if self._ready.is_set() and self._gap_began is None:
            client = self._client()
            quiet_s = client.quiet_s if client is not None else 0.0
            self._gap_began = datetime.now(UTC) - timedelta(seconds=quiet_s)
            self._gap_began_s = elapsed_s() - quiet_s

    def _end_gap(self) -> None:
        if self._gap_began is not None:
            self._stats["ibkr_reconnections"] += 1
            end = datetime.now(UTC)
            logger.warning(
                "No data from IBKR between %s and %s UTC (%.0f s): the connection was lost.",
                f"{self._gap_began:%H:%M:%S}",
                f"{end:%H:%M:%S}",
                elapsed_s() - self._gap_began_s,
            )
            self._gap_began = None


def _refuse_if_final(client: "IBKRClient | None") -> None:
    if client is not None and client.failure is not None and client.failure.final:
        raise client.failure


def _pause_s(failures: int, steady_at: float) -> float:
    outage_s = time.monotonic() - steady_at
    return reconnect_pause_s(
        failures, random.random(), outage_s, first_s=RETRY_S, max_s=MAX_RETRY_S
    )
