"""Which symbols are US tickers, in each spelling that a vendor or a client of it uses."""

from typing import Any

import pytest

from newshead.news.exchanges import Listing, judged, securities


def us(**content: Any) -> list[str]:
    return [s.symbol for s in securities(content) if s.listing is Listing.US]


@pytest.mark.parametrize(
    "exchange",
    [
        *("NYSE", "nasdaq", "AMEX", "ARCA", "OTC", "OTCBB", "PINX", "PINK", "BATS", "IEX"),
        *("NYSE American", "NYSE-Arca", "NYSE MKT", "NASDAQ GS", "NasdaqGM", "NASDAQ:CM"),
        *("OTCQB", "OTC QX", "Cboe", "XNAS", "XNYS", "", " "),
    ],
)
def test_a_us_exchange_is_known_without_case_blanks_and_punctuation(exchange: str) -> None:
    assert judged(f" {exchange}: abcd ").listing is Listing.US
    assert judged("ABCD", exchange) == ("ABCD", exchange.strip(), Listing.US)


@pytest.mark.parametrize(
    "symbol",
    [
        *("BRK.B", "BF-A", "BRK/B", "BRK B", "ABC.U", "ABC.UN", "ABC.WS", "ABC-WT", "ABC.W"),
        *("ABC.RT", "ABC.R", "ABC.PR", "ABC-PRA", "BAC-PK", "ABC/WSA", "ABC.WI"),
    ],
)
def test_classes_units_warrants_rights_and_preferreds_are_us_tickers(symbol: str) -> None:
    assert judged(symbol) == (symbol, "", Listing.US)


@pytest.mark.parametrize(
    "symbol",
    [
        *("TSX:SHOP", "tsx-v: ABC", "LSE:VOD", "NSE:INFY", "HKEX:0700", "X:BTCUSD", "ASX:BHP"),
        *(
            "SHOP.TO",
            "BHP.AX",
            "0700.HK",
            "VOD.L",
            "ABC.V",
            "AIR.PA",
            "NASDAQ:SHOP.TO",
            "600519.SS",
        ),
        *("BTC/USD", "ETH-USD", "BTC/USDT", "SHIB-USDT", "EUR/USD", "$BTC", "BTCUSD", "SHOP-CA"),
    ],
)
def test_listings_elsewhere_and_pairs_are_no_us_tickers(symbol: str) -> None:
    assert judged(symbol).listing is Listing.FOREIGN


@pytest.mark.parametrize("symbol", ["TOOLONGNAME", "ABC'; DROP TABLE x", "", "123", "\u017f"])
def test_what_is_no_symbol_is_not_understood(symbol: str) -> None:
    assert judged(symbol).listing is Listing.NOT_UNDERSTOOD


def test_an_exchange_that_is_in_no_list_is_unknown() -> None:
    assert judged("Moon Stock Exchange: abcd") == ("ABCD", "Moon Stock Exchange", Listing.UNKNOWN)


@pytest.mark.parametrize(
    "value",
    [
        "ABCD",
        ["ABCD"],
        [{"symbol": "ABCD", "exchange": "NASDAQ"}],
        [{"name": "ABCD", "exchange": "NASDAQ"}],
        [{"ticker": "ABCD"}],
        {"symbol": "ABCD"},
        {"ticker": "NASDAQ:ABCD"},
        {"item": [{"symbol": "ABCD"}, {"ticker": "ABCD"}]},
        {"item": "ABCD"},
        ["abcd", None, [], {}, {"symbol": "", "exchange": ""}],
    ],
)
@pytest.mark.parametrize("field", ["securities", "stocks", "tickers"])
def test_a_ticker_is_found_in_every_spelling(field: str, value: object) -> None:
    assert us(**{field: value}) == ["ABCD"]
    assert len(securities({field: value})) == 1


def test_what_names_an_exchange_outweighs_what_names_none() -> None:
    assert us(securities=[{"symbol": "AC", "exchange": "TSX"}], tickers=["AC"]) == []
    both = [{"symbol": "SHOP", "exchange": "TSX"}, {"symbol": "SHOP", "exchange": "NASDAQ"}]
    assert us(securities=both) == us(securities=both[::-1]) == ["SHOP"]


@pytest.mark.parametrize("value", [[{"isin": "US0378331005"}], [7], {"isin": "x"}, [[["x" * 9]]]])
def test_a_new_spelling_is_seen_to_name_something(value: object) -> None:
    assert [s.listing for s in securities({"securities": value})] == [Listing.NOT_UNDERSTOOD]
