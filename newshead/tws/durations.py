"""How long the client waits for what, in one object that a test replaces whole."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Durations:
    """The client's durations, in seconds."""

    connect_timeout_s: float = 9.0
    # Whoever waits patiently gives a TWS that has answered so long to become ready.
    ready_timeout_s: float = 60.0
    disconnect_timeout_s: float = 2.0
    # Without a message for so long TWS is asked for the time, and without an answer
    # for so long again the connection is given up: an open socket tells nothing.
    heartbeat_s: float = 10.0
    answer_s: float = 10.0
    # A subscription without data for so long, while others have some, is asked for
    # again; each time after twice the pause.
    silent_s: float = 30.0
    max_silent_s: float = 600.0
    # Without any data for so long the silent tickers are asked for again, and so long an answer
    # (a snapshot) is waited for; then the reference is asked for, and so long waited for.
    quiet_s: float = 10.0
    snapshot_s: float = 5.0
    reference_s: float = 10.0
    # A connection that brings no data is given up once in so long.
    silence_reconnect_s: float = 300.0
    # After TWS said that data flows again, it is given so long to show.
    recovery_s: float = 2.0
    watch_every_s: float = 1.0
    # A ticker for which TWS has no line free, or fails, is asked for again after this.
    parked_s: float = 20.0
    # A request for a ticker's listings that is not answered in so long is made again.
    listings_s: float = 10.0
    # So long after connecting, IBKR's definitions may be incomplete: stocks that exist are unknown.
    distrust_s: float = 30.0


DURATIONS = Durations()
