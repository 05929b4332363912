"""The farms that TWS's texts name."""

import pytest

from newshead.tws.farms import carries_us_stocks, farm_name, farms_away


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Market data farm connection is broken:usfarm", "usfarm"),
        ("Market data farm connection is OK:usfarm.nj", "usfarm.nj"),
        ("Market data farm is connecting: USFARM ", "usfarm"),
        (
            "Market data farm connection is inactive but should be available upon demand.usfarm",
            "usfarm",
        ),
        (
            "Market data farm connection is inactive but should be available upon demand.usfarm.nj",
            "usfarm.nj",
        ),
        ("La conexión de la granja de datos de mercado está rota:usfarm", "usfarm"),
        ("市场数据农场连接已断开：usfarm.nj", "usfarm.nj"),  # noqa: RUF001
        ("市场数据农场连接处于非活动状态，但应可按需使用。usfarm", "usfarm"),  # noqa: RUF001
        ("Sec-def data farm connection is OK:secdefnj.", "secdefnj"),
        ("The farm is broken.", ""),
        ("", ""),
    ],
)
def test_the_name_is_the_last_word_behind_a_colon_or_a_full_stop(text: str, name: str) -> None:
    assert farm_name(text) == name


@pytest.mark.parametrize("name", ["usfarm", "usfarm.nj", "newfarm", ""])
def test_the_us_farms_and_unknown_ones_carry_us_stocks(name: str) -> None:
    assert carries_us_stocks(name)


@pytest.mark.parametrize(
    "name",
    ["usfuture", "usfuture.nj", "usopt", "hfarm", "eufarm", "cashfarm", "ushmds", "secdefnj"],
)
def test_farms_of_other_markets_and_data_carry_none(name: str) -> None:
    assert not carries_us_stocks(name)


RESTORED = "Connectivity between IB and Trader Workstation has been restored - data maintained."


@pytest.mark.parametrize(
    ("text", "away"),
    [
        (
            f"{RESTORED} The following farms are connected: usfarm; secdefnj. "
            "The following farms are not connected: ushmds.",
            {"ushmds"},
        ),
        (
            f"{RESTORED} The following farms are not connected: usfarm.nj; usfarm.",
            {"usfarm", "usfarm.nj"},
        ),
        (
            f"{RESTORED} All data farms are connected: usfarm.nj; usfarm; euhmds.",
            set(),
        ),
        (RESTORED, None),
        ("La conectividad se ha restablecido. Granjas conectadas: usfarm.", None),
    ],
)
def test_a_restored_connections_text_may_list_farms_of_both_kinds(
    text: str, away: set[str] | None
) -> None:
    assert farms_away(text) == away
