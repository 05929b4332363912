"""How TWS's codes are told: once, at their level, with ticker, address and TWS's own words."""

import logging

from newshead.tws.codes import NO_US_LISTING, Reaction
from newshead.tws.notices import Notice, Notices


def notices() -> Notices:
    return Notices("tws.example", 7497, 10)


def test_a_code_is_told_with_its_ticker_and_twss_own_words_in_one_line() -> None:
    notice = notices().read(321, "Error\n validating  request", "AAPL", 0)
    assert notice == Notice(
        Reaction.DROP_TICKER,
        logging.ERROR,
        "IBKR refuses AAPL; it is left out for this run. (Error validating request)",
    )


def test_a_code_names_address_and_client_id() -> None:
    line = notices().read(326, "", "", 0).line
    assert "10 is in use at tws.example:7497" in line


def test_a_repeated_code_is_for_debug_alone_until_its_time_is_over() -> None:
    told = notices()
    levels = [told.read(10197, "", "AAPL", now).level for now in (0, 899, 900, 901)]
    assert levels == [logging.ERROR, logging.DEBUG, logging.ERROR, logging.DEBUG]


def test_each_ticker_is_told_of_by_itself_where_the_line_names_it() -> None:
    told = notices()
    levels = [told.read(101, "", ticker, 0).level for ticker in ("AAPL", "MSFT", "AAPL")]
    assert levels == [logging.WARNING, logging.WARNING, logging.DEBUG]


def test_a_code_about_a_request_that_is_over_is_for_debug_alone() -> None:
    assert notices().read(321, "", "", 0).level == logging.DEBUG
    assert notices().read(321, "", "", 0, of_request=False).level == logging.ERROR


def test_a_line_of_the_table_is_filled_in_by_itself() -> None:
    assert notices().line(NO_US_LISTING, "AAPL").startswith("None of the listings of AAPL")
