"""The buffer of trades: what counts, in order, and what it costs when nobody takes it."""

import math
from datetime import UTC, datetime, timedelta

import pytest
from ibapi.const import UNSET_DOUBLE

from newshead.tws import trades
from newshead.tws.last_trades import LastTrades
from newshead.tws.trades import TradeBuffer

NOW = datetime(2026, 11, 25, 15, 0, tzinfo=UTC)
LAST, LAST_SIZE, TIME = 4, 5, 45
TICKERS = {7: "AAPL", 8: "MSFT"}


def buffer() -> TradeBuffer:
    return TradeBuffer(LastTrades(), {LAST: "live"})


def prices(trade_buffer: TradeBuffer, ticker: str) -> list[float]:
    return [tick["price"] for tick in trade_buffer.price_buffer.get(ticker, [])]


def test_a_trade_is_buffered_with_size_time_and_source() -> None:
    kept = buffer()
    assert kept.record([(7, LAST, 5.0, 100)], TICKERS, NOW) == [("AAPL", 5.0, 100, NOW, "live")]
    tick = {"price": 5.0, "volume": 100, "timestamp": NOW, "source": "live"}
    assert kept.price_buffer == {"AAPL": [tick]}
    assert kept.last_volume == {"AAPL": 100}


@pytest.mark.parametrize("price", [-1.0, 0.0, math.nan, math.inf, UNSET_DOUBLE])
def test_what_is_no_price_is_left_out(price: float) -> None:
    assert buffer().record([(7, LAST, price, 100)], TICKERS, NOW) == []


@pytest.mark.parametrize("tick", [(9, LAST, 5.0, 1), (7, 68, 5.0, 1), (7, LAST_SIZE, None, 1)])
def test_unknown_requests_other_kinds_and_lone_sizes_make_no_tick(
    tick: tuple[int, int, float | None, int],
) -> None:
    assert buffer().record([tick], TICKERS, NOW) == []


def test_a_held_trade_comes_with_a_later_call_and_takes_its_place_by_time() -> None:
    kept = buffer()
    kept.record([(7, LAST, 1.0, 1)], TICKERS, NOW)
    kept.last_trades.requested("AAPL")
    # Without its time the first waits for it, while the second is new.
    later = NOW + timedelta(seconds=10)
    assert kept.record([(7, LAST, 2.0, 1)], TICKERS, later) == []
    kept.record([(7, LAST, 3.0, 1)], TICKERS, later + timedelta(seconds=1))
    told = int(later.timestamp()) - 1
    kept.record([(7, TIME, told, 0)], TICKERS, later + timedelta(seconds=1.5))
    assert prices(kept, "AAPL") == [1.0, 2.0, 3.0]


def test_a_size_told_by_itself_is_the_last_one() -> None:
    kept = buffer()
    kept.add_size("AAPL", 30)
    assert kept.last_volume == {"AAPL": 30}


def test_a_forgotten_ticker_s_trades_are_gone_and_the_others_stay() -> None:
    kept = buffer()
    kept.record([(7, LAST, 5.0, 1), (8, LAST, 6.0, 1)], TICKERS, NOW)
    kept.forget("AAPL")
    assert (list(kept.price_buffer), list(kept.last_volume)) == (["MSFT"], ["MSFT"])


@pytest.mark.parametrize("some", [True, False])
def test_what_is_taken_comes_with_how_many_were_pushed_out(
    some: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trades, "MAX_TICKS_PER_TICKER", 2)
    kept = buffer()
    kept.record([(7, LAST, float(price), 1) for price in range(1, 6)], TICKERS, NOW)
    kept.record([(8, LAST, 9.0, 1)], TICKERS, NOW)
    assert kept.ticks_pushed_out == 3
    taken, lost = kept.take({"AAPL"} if some else None)
    assert [tick["price"] for tick in taken["AAPL"]] == [4.0, 5.0]
    assert lost == {"AAPL": 3}
    assert list(kept.price_buffer) == (["MSFT"] if some else [])
    assert kept.take()[1] == {}
