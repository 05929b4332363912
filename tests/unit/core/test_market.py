"""The words for halts and kinds of data."""

import pytest

from newshead.core.market import describe


@pytest.mark.parametrize(
    ("halted", "data_type", "words"),
    [
        (0, 1, ""),
        (1, 1, "halted (news pending)"),
        (2, 3, "halted (volatility pause)"),
        (0, 3, "delayed data"),
        (0, 2, "frozen data"),
        (9, 9, ""),
    ],
)
def test_what_keeps_a_ticker_from_having_prices_is_named(
    halted: int, data_type: int, words: str
) -> None:
    assert describe(halted, data_type) == words
