"""IBKR's data farms break and come back one by one: what counts, and what is asked for again."""

import logging

import pytest
from tws import came, connected, every_form, lasting, lines, requested, serving, trade, until

from ibkr_client import ConnectionState, IBKRClient
from simulator import GatewayThread

BROKEN = "Market data farm connection is broken:"
OK = "Market data farm connection is OK:"
IDLE = "Market data farm connection is inactive but should be available upon demand."
RESTORED = "Connectivity between IB and Trader Workstation has been restored - data maintained."


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    lasting(monkeypatch, recovery_s=0.1, watch_every_s=0.02)


def say(thread: GatewayThread, *codes: tuple[int, str]) -> None:
    for number, text in codes:
        thread.call(thread.gateway.send_error, number, text)


def becomes(client: IBKRClient, state: ConnectionState) -> None:
    until(lambda: client.state is state)


def renewed(thread: GatewayThread, times: int) -> None:
    until(lambda: len(requested(thread, "reqMktData")) == 1 + times)


@every_form
def test_an_outage_lasts_until_each_farm_is_back(server_version: int) -> None:
    with (
        serving("AAPL", server_version=server_version) as thread,
        connected(thread, "AAPL") as client,
    ):
        say(thread, (2103, BROKEN + "usfarm"), (2103, BROKEN + "usfarm.nj"))
        becomes(client, ConnectionState.STALE)
        say(thread, (2104, OK + "cashfarm"), (2104, OK + "usfarm"))
        # Its tickers are asked for as soon as one is back.
        renewed(thread, 1)
        assert client.state is ConnectionState.STALE
        assert "usfarm.nj" in client.stale_reason
        say(thread, (2108, IDLE + "usfarm.nj"))
        becomes(client, ConnectionState.READY)
        renewed(thread, 2)


@pytest.mark.parametrize("farm", ["hfarm", "usfuture.nj", "ushmds"])
def test_a_farm_without_us_stocks_changes_nothing_and_warns_nobody(
    farm: str, caplog: pytest.LogCaptureFixture
) -> None:
    with serving("AAPL") as thread, connected(thread, "AAPL") as client:
        say(thread, (2103, BROKEN + farm))
        trade(thread, "AAPL", 5.0, 100)
        until(came(client, "AAPL", 5.0))
        assert client.state is ConnectionState.READY
        assert lines(caplog) == []


def test_a_connection_that_is_restored_leaves_the_farms_away_that_it_names(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with serving("AAPL") as thread, connected(thread, "AAPL") as client:
        say(
            thread,
            (1100, "Connectivity has been lost."),
            (
                1102,
                f"{RESTORED} The following farms are connected: secdefnj. "
                "The following farms are not connected: usfarm; ushmds.",
            ),
        )
        until(lambda: any("not connected: usfarm" in line for line in lines(caplog)))
        becomes(client, ConnectionState.STALE)
        assert "usfarm" in client.stale_reason
        assert "ushmds" not in client.stale_reason
        say(thread, (2104, OK + "usfarm"))
        becomes(client, ConnectionState.READY)


@pytest.mark.parametrize(
    ("restored", "state"),
    [
        (f"{RESTORED} All data farms are connected: usfarm; ushmds.", ConnectionState.READY),
        ("Se ha restablecido la conectividad.", ConnectionState.STALE),
    ],
)
def test_a_restored_connection_ends_a_farm_s_outage_only_where_it_says_so(
    restored: str, state: ConnectionState
) -> None:
    with serving("AAPL") as thread, connected(thread, "AAPL") as client:
        say(thread, (2103, BROKEN + "usfarm"), (1100, "lost"), (1102, restored))
        renewed(thread, 1)
        assert client.state is state


def test_what_was_refused_while_a_farm_was_away_is_asked_for_when_it_is_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with serving("AAPL") as thread, connected(thread, "AAPL") as client:
        say(thread, (2103, BROKEN + "usfarm"))
        req_id = client.ticker_to_reqid["AAPL"]
        thread.call(thread.gateway.send_error, 354, "Not subscribed", req_id)
        until(lambda: any("No data for AAPL" in line for line in lines(caplog, logging.ERROR)))
        say(thread, (2104, OK + "usfarm"))
        renewed(thread, 1)
