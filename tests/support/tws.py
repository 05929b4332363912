"""A client on a simulated gateway, over a real socket."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime

import pytest
from deadlines import DEADLINE_S
from ibapi.server_versions import MAX_CLIENT_VER

import ibkr_client
from ibkr_client import IBKRClient
from newshead.tws import memory
from newshead.tws.codes import Reaction
from simulator import Gateway, GatewayThread, Market

HOST = "127.0.0.1"


def versions(*numbers: int) -> pytest.MarkDecorator:
    """Run a test at each server version that the installed ibapi can speak."""
    return pytest.mark.parametrize(
        "server_version",
        [
            pytest.param(
                number,
                marks=pytest.mark.skipif(number > MAX_CLIENT_VER, reason="newer than ibapi"),
            )
            for number in numbers
        ],
    )


# Text alone (two ages of it), text after a raw message id, market data as protobuf, all of it.
every_version = versions(176, 187, 200, 201, 206, 225, 226)


# One version for each of the three forms that a message has, and the newest.
every_form = versions(176, 201, 225, 226)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.005)


def serving(
    *symbols: str,
    server_version: int = 226,
    account: str = "DU1234567",
    describing: bool = True,
) -> GatewayThread:
    """A gateway that knows these symbols; it is played by the test alone.

    One that describes no contracts says nothing between two pieces of a message.
    """
    gateway = Gateway(Market(symbols=symbols), server_version=server_version, accounts=[account])
    gateway.describing = describing
    return GatewayThread(gateway)


@contextmanager
def connected(
    thread: GatewayThread,
    *tickers: str,
    client_id: int = 10,
    price_callback: Callable[[str, float, int, datetime], object] | None = None,
) -> Iterator[IBKRClient]:
    """A client that is ready and subscribed; the gateway has taken all its requests."""
    client = IBKRClient(HOST, thread.gateway.port, client_id, price_callback)
    assert client.connect_and_run(), client.failure
    try:
        for ticker in tickers:
            assert client.subscribe_ticker(ticker)
        until(lambda: len(requested(thread, "reqMktData", client_id)) == len(tickers))
        yield client
    finally:
        client.disconnect_safely()
        assert ended(client)


def requested(thread: GatewayThread, kind: str, client_id: int = 10) -> list[str]:
    """The symbols of all requests of a kind, in the order they came."""
    return [
        request.symbol
        for request in list(thread.gateway.requests)
        if (request.kind, request.client_id) == (kind, client_id)
    ]


def lasting(monkeypatch: pytest.MonkeyPatch, **seconds: float) -> None:
    """Give the clients of this test other durations."""
    durations = replace(ibkr_client.DURATIONS, **seconds)
    for module in (ibkr_client, memory):
        monkeypatch.setattr(module, "DURATIONS", durations)


def trade(thread: GatewayThread, ticker: str, price: float, size: float) -> None:
    thread.call(thread.gateway.trade, ticker, price, size)


def buffered(client: IBKRClient, ticker: str) -> list[tuple[float, int]]:
    with client.price_buffer_lock:
        return [(tick["price"], tick["volume"]) for tick in client.price_buffer.get(ticker, [])]


def came(client: IBKRClient, ticker: str, price: float) -> Callable[[], bool]:
    """Whether a price stands in the buffer: all that was sent before it has been taken in."""
    return lambda: any(each == price for each, _ in buffered(client, ticker))


def ended(client: IBKRClient) -> bool:
    """Whether the API thread ends; waits for it."""
    assert client.api_thread is not None
    client.api_thread.join(DEADLINE_S)
    return not client.api_thread.is_alive()


def lines(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[str]:
    """What the client has logged from a level on."""
    return [
        record.getMessage()
        for record in list(caplog.records)
        if record.name == "ibkr_client" and record.levelno >= level
    ]


OWN_WORDS = "TWS's own words"


REMEDY = ("AAPL", "Market Data Subscriptions", "IBKR_MARKET_DATA_TYPE=3", OWN_WORDS)


ADDRESS = (HOST, "API", "IBKR_HOST", "IBKR_PORT")


# A second statement of the table: the level of the line, the reaction, and what must stand in
# the line. What each reaction does is shown in test_gateway_faults.py.
EXPECTED: dict[int, tuple[int, Reaction, tuple[str, ...]]] = {
    100: (logging.ERROR, Reaction.SLOW_DOWN, ("50 messages", "slows down", OWN_WORDS)),
    101: (logging.WARNING, Reaction.NO_LINE, ("AAPL", "line", "waits until", OWN_WORDS)),
    102: (logging.WARNING, Reaction.NEW_REQUEST_ID, ("AAPL", "again", OWN_WORDS)),
    162: (logging.INFO, Reaction.NONE, ("AAPL", "no past bars", OWN_WORDS)),
    200: (logging.INFO, Reaction.FIND_LISTING, ("AAPL", "asking for its listings", OWN_WORDS)),
    300: (logging.DEBUG, Reaction.NONE, (OWN_WORDS,)),
    320: (logging.WARNING, Reaction.PARK_TICKER, ("AAPL", "again", OWN_WORDS)),
    321: (logging.ERROR, Reaction.DROP_TICKER, ("AAPL", "left out", OWN_WORDS)),
    322: (logging.WARNING, Reaction.PARK_TICKER, ("AAPL", "again", OWN_WORDS)),
    326: (
        logging.ERROR,
        Reaction.END_CONNECTION,
        ("Client id 10", "two minutes", "IBKR_CLIENT_ID"),
    ),
    354: (logging.ERROR, Reaction.NO_DATA, REMEDY),
    366: (logging.INFO, Reaction.NONE, ("AAPL", "no past bars", OWN_WORDS)),
    420: (logging.INFO, Reaction.NONE, ("AAPL", "no past bars", OWN_WORDS)),
    502: (logging.ERROR, Reaction.END_CONNECTION, ADDRESS),
    503: (logging.ERROR, Reaction.STOP, ("too old", "update", OWN_WORDS)),
    504: (logging.ERROR, Reaction.END_CONNECTION, ADDRESS),
    505: (logging.ERROR, Reaction.END_CONNECTION, ("cannot be read", OWN_WORDS)),
    507: (logging.ERROR, Reaction.END_CONNECTION, ("cannot be read", OWN_WORDS)),
    1100: (logging.WARNING, Reaction.MARK_STALE, ("lost", "restores it itself", OWN_WORDS)),
    1101: (logging.WARNING, Reaction.RESUBSCRIBE_ALL, ("again", "subscriptions are lost")),
    1102: (
        logging.WARNING,
        Reaction.RESUBSCRIBE_SILENT,
        ("again", "with its subscriptions", OWN_WORDS),
    ),
    1300: (logging.ERROR, Reaction.STOP, ("port", "IBKR_PORT", OWN_WORDS)),
    2103: (logging.WARNING, Reaction.FARM_AWAY, ("farm is broken", OWN_WORDS)),
    2104: (logging.DEBUG, Reaction.FARM_BACK, (OWN_WORDS,)),
    2108: (logging.DEBUG, Reaction.FARM_BACK, (OWN_WORDS,)),
    2110: (logging.WARNING, Reaction.MARK_STALE, ("lost", "restores it itself", OWN_WORDS)),
    2157: (logging.WARNING, Reaction.NONE, ("definitions of stocks are away", OWN_WORDS)),
    2158: (logging.DEBUG, Reaction.DEFINITIONS_BACK, (OWN_WORDS,)),
    10089: (logging.ERROR, Reaction.NO_DATA, REMEDY),
    10090: (logging.WARNING, Reaction.NONE, ("AAPL", "the rest flows", OWN_WORDS)),
    10091: (logging.WARNING, Reaction.NONE, ("AAPL", "the rest flows", OWN_WORDS)),
    10167: (logging.WARNING, Reaction.NONE, ("AAPL", "15 minutes late", OWN_WORDS)),
    10168: (logging.ERROR, Reaction.NO_DATA, REMEDY),
    10186: (logging.ERROR, Reaction.NO_DATA, REMEDY),
    10197: (logging.ERROR, Reaction.PARK_TICKER, ("logged in elsewhere", "log out", OWN_WORDS)),
}
