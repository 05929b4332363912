"""Paper or live: by the account's id, else by the port."""

import pytest

from newshead.tws.account import is_paper, masked, paper_by_port


@pytest.mark.parametrize(
    ("accounts", "port", "paper"),
    [
        (["DU1234567"], 7496, True),
        (["DF1234567"], 7496, True),
        (["U1234567"], 7497, False),
        ([], 7497, True),
        ([], 4001, False),
        ([], 5000, None),
    ],
)
def test_the_account_tells_and_without_one_the_port(
    accounts: list[str], port: int, paper: bool | None
) -> None:
    assert is_paper(accounts, port) is paper


def test_ports_are_known_as_tws_and_gateway_come() -> None:
    assert [paper_by_port(port) for port in (7497, 4002, 7496, 4001)] == [True, True, False, False]


def test_all_but_the_last_two_characters_of_an_account_are_masked() -> None:
    assert masked("DU1234567") == "*******67"
