"""Past bars from the simulated gateway, by the client, over a real socket."""

import time
from datetime import UTC, datetime

import pytest
from tws import came, connected, every_version, lines, requested, serving, trade, until

from ibkr_client import IBKRClient
from newshead.tws.past_bars import Bar, Outcome, Wanted
from simulator import GatewayThread

# Begins of a minute and a half ago, whatever the hour.
BEGAN = int(time.time()) // 60 * 60 - 120


def with_past(thread: GatewayThread) -> None:
    book = thread.gateway.book("AAPL")
    for seconds, price, size in ((1, 2.0, 100), (4, 2.5, 50), (6, 2.25, 10.0), (70, 3.0, 1)):
        thread.call(book.record, price, size, BEGAN + seconds)


def outcome(client: IBKRClient, wanted: Wanted) -> Outcome:
    client.past_bars.ask(wanted)
    found: list[Outcome] = []

    def over() -> bool:
        if (told := client.past_bars.take()) is not None:
            found.append(told)
        return bool(found)

    until(over)
    return found[0]


@every_version
def test_bars_of_both_lengths_come_beside_market_data_at_every_version(
    server_version: int,
) -> None:
    with serving("AAPL", server_version=server_version) as thread:
        with_past(thread)
        with connected(thread, "AAPL") as client:
            assert outcome(client, Wanted("AAPL", BEGAN, BEGAN + 120, 5)).bars == (
                Bar(BEGAN, 2.0, 2.5, 2.0, 2.5, 150),
                Bar(BEGAN + 5, 2.25, 2.25, 2.25, 2.25, 10),
                Bar(BEGAN + 70, 3.0, 3.0, 3.0, 3.0, 1),
            )
            assert outcome(client, Wanted("AAPL", BEGAN, BEGAN + 60, 60)).bars == (
                Bar(BEGAN, 2.0, 2.5, 2.0, 2.25, 160),
            )
            end = datetime.fromtimestamp(BEGAN + 120, UTC)
            details = [r.detail for r in thread.gateway.requests if r.kind == "reqHistoricalData"]
            assert details[0] == f"5 secs 120 S {end:%Y%m%d-%H:%M:%S}"
            trade(thread, "AAPL", 271.5, 100)
            until(came(client, "AAPL", 271.5))


@pytest.mark.parametrize(
    ("ticker", "code"), [("AAPL", "162"), ("NONE", "200")], ids=["no trades", "no such stock"]
)
@every_version
def test_a_refusal_is_one_line_and_touches_no_subscription(
    server_version: int, ticker: str, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with (
        serving("AAPL", server_version=server_version) as thread,
        connected(thread, "AAPL") as client,
    ):
        wanted = Wanted(ticker, BEGAN, BEGAN + 120, 5)
        assert outcome(client, wanted) == Outcome(refused=True)
        (line,) = [each for each in lines(caplog, 20) if "past bars" in each]
        assert line.startswith(f"IBKR code {code}: IBKR gives no past bars of {ticker}. (")
        assert client.get_refusals() == {}
        trade(thread, "AAPL", 271.5, 100)
        until(came(client, "AAPL", 271.5))
        assert requested(thread, "reqMktData") == ["AAPL"]


def test_an_answer_that_does_not_come_is_given_up_at_tws_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    with serving("AAPL") as thread, connected(thread, "AAPL") as client:
        with_past(thread)
        thread.call(setattr, thread.gateway, "recalling", False)
        client.past_bars.ask(Wanted("AAPL", BEGAN, BEGAN + 120, 5))
        until(lambda: requested(thread, "reqHistoricalData"))
        client.past_bars.give_up()
        until(lambda: requested(thread, "cancelHistoricalData"))
        thread.call(setattr, thread.gateway, "recalling", True)
        # The code about what was given up is no refusal of what is asked for now.
        assert outcome(client, Wanted("AAPL", BEGAN, BEGAN + 60, 60)).bars
        assert not [each for each in lines(caplog, 20) if "past bars" in each]
