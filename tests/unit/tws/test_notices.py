"""How TWS's codes are told: once, at their level, with ticker, address and TWS's own words."""

import logging

import pytest

from newshead.tws.codes import FINDINGS, Reaction
from newshead.tws.listings import Finding
from newshead.tws.notices import Notice, Notices


def notices() -> Notices:
    return Notices("tws.example", 7497, 10)


def test_a_code_is_told_with_its_ticker_and_twss_own_words_in_one_line() -> None:
    notice = notices().read(321, "Error\n validating  request", "AAPL", 0)
    assert notice == Notice(
        Reaction.DROP_TICKER,
        logging.ERROR,
        "IBKR refuses AAPL; it is left out until the session's roll or a new "
        "connection. (Error validating request)",
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


def test_each_broken_farm_is_told_of_by_itself() -> None:
    told = notices()
    farms = ("usfarm", "usfarm.nj", "usfarm", "hfarm")
    levels = [told.read(2103, f"is broken:{farm}", "", 0, of_request=False).level for farm in farms]
    assert levels == [logging.WARNING, logging.WARNING, logging.DEBUG, logging.DEBUG]


@pytest.mark.parametrize("number", [200, 321, 322])
def test_a_refusal_without_a_request_names_no_ticker_and_asks_for_nothing(number: int) -> None:
    notice = notices().read(number, "Some words", "", 0, of_request=False)
    assert notice == Notice(
        Reaction.NONE,
        logging.WARNING,
        "TWS refuses something that is about no ticker. (Some words)",
    )


def test_a_read_only_api_is_noted_as_harmless() -> None:
    text = "Error validating request: The API interface is currently in Read-Only mode."
    notice = notices().read(321, text, "", 0, of_request=False)
    assert notice.level == logging.INFO
    assert notice.line.startswith("TWS's API is read-only: newshead places no orders.")


def test_an_unknown_code_without_a_request_is_told_in_twss_own_words() -> None:
    assert notices().read(9999, "New words", "", 0, of_request=False).line == "IBKR: New words"


def test_a_finding_is_told_with_its_exchange_once_for_each_ticker() -> None:
    told = notices()
    code = FINDINGS[Finding.UNKNOWN_EXCHANGE]
    notice = told.about(code, (Finding.UNKNOWN_EXCHANGE, "ABCD"), "ABCD", "OTCLNK", 0)
    assert notice.line.startswith("ABCD is listed on OTCLNK")
    again = [
        told.about(code, (Finding.UNKNOWN_EXCHANGE, ticker), ticker, "OTCLNK", 1e6).level
        for ticker in ("ABCD", "EFGH")
    ]
    assert again == [logging.DEBUG, logging.WARNING]
