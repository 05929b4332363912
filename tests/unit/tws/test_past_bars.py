"""The requests for past bars of a connection: what is sent, and what of TWS's answers counts."""

from decimal import Decimal
from typing import Any

from ibapi.common import BarData

from newshead.tws.past_bars import FIRST_REQ_ID, Bar, Outcome, PastBars, Wanted

BEGAN = 1_795_618_855
WANTED = Wanted("ABCD", BEGAN, BEGAN + 125, 5)


class Sent:
    """What was sent, in place of a connection."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.cancelled: list[int] = []
        self.bars = PastBars(lambda req_id, _: self.asked.append(req_id), self.cancelled.append)


def bar(
    at: object, price: float = 2.0, low: float = 1.5, volume: str = "100", high: float = 3.0
) -> BarData:
    made = BarData()
    made.date, made.open, made.high, made.low, made.close = str(at), price, high, low, price
    made.volume = Decimal(volume)
    return made


def asked() -> tuple[Sent, PastBars, int]:
    sent = Sent()
    sent.bars.ask(WANTED)
    return sent, sent.bars, sent.asked[-1]


def test_a_request_is_for_trades_at_any_hour_up_to_a_time_in_utc() -> None:
    query: Any = "20261125-15:03:00", "125 S", "5 secs", "TRADES", 0, 2, False, []
    assert WANTED.query == query
    assert WANTED._replace(bar_s=60).query[2] == "1 min"


def test_each_request_has_an_id_of_its_own_far_from_those_of_market_data() -> None:
    sent, bars, first = asked()
    bars.ask(WANTED)
    assert sent.asked == [first, first + 1]
    assert FIRST_REQ_ID < first < 2**31 - 1


def test_bars_that_were_asked_for_come_out_once_in_the_order_of_time() -> None:
    _, bars, req_id = asked()
    bars.add(req_id, bar(BEGAN + 5))
    bars.add(req_id, bar(BEGAN, volume="10.4"))
    assert bars.take() is None
    bars.end(req_id)
    assert bars.take() == Outcome(
        (Bar(BEGAN, 2.0, 3.0, 1.5, 2.0, 10), Bar(BEGAN + 5, 2.0, 3.0, 1.5, 2.0, 100))
    )
    assert bars.take() is None


def test_bars_of_other_times_and_without_a_time_or_a_price_are_left_out() -> None:
    _, bars, req_id = asked()
    for each in (
        bar(BEGAN - 1),
        bar(BEGAN + 125),
        bar("20261125 15:03:00 US/Eastern"),
        bar("²"),
        bar(BEGAN, low=-1.0),
        bar(BEGAN, high=float("nan")),
    ):
        bars.add(req_id, each)
    bars.end(req_id)
    assert bars.take() == Outcome()


def test_a_code_ends_the_request_but_a_notice_does_not() -> None:
    _, bars, req_id = asked()
    bars.add(req_id, bar(BEGAN))
    bars.refuse(req_id, 2174)
    assert bars.ticker_of(req_id) == "ABCD"
    bars.refuse(req_id, 162)
    assert bars.take() == Outcome(refused=True)
    assert bars.ticker_of(req_id) == ""


def test_what_comes_about_another_request_or_one_that_is_over_counts_for_nothing() -> None:
    sent, bars, req_id = asked()
    for other in (req_id + 1, 1000):
        assert bars.ticker_of(other) == ""
        bars.add(other, bar(BEGAN))
        bars.refuse(other, 162)
        bars.end(other)
    bars.give_up()
    bars.add(req_id, bar(BEGAN))
    bars.end(req_id)
    bars.refuse(req_id, 162)
    assert bars.take() is None
    assert sent.cancelled == [req_id]


def test_what_is_told_at_once_of_a_request_that_is_given_up_is_about_it_and_no_outcome() -> None:
    told: list[tuple[str, bool]] = []

    def answer(req_id: int) -> None:
        told.append((bars.ticker_of(req_id), bars.given_up))
        bars.refuse(req_id, 162)

    bars = PastBars(lambda *_: None, answer)
    bars.ask(WANTED)
    bars.give_up()
    assert told == [("ABCD", True)]
    assert bars.take() is None
    bars.ask(WANTED)
    assert not bars.given_up
