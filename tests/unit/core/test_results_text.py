"""Results in words and columns."""

import re

import pytest

from newshead.core import results_text
from newshead.core.results import END, PATH_S, Case, after, lines
from newshead.core.results_text import TOO_FEW, WIDTH

FIRST = 1_700_000_000


def case(number: int = 0, change_pct: float | None = 1.0, **fields: object) -> Case:
    """A window that alerted, with a follow-up unless its change after 5 minutes is None."""
    known = {} if change_pct is None else {after(5): change_pct}
    found = Case(
        f"T{number}",
        FIRST + number,
        FIRST + number + 6,
        2.0,
        6.0,
        True,
        "BUY",
        "high",
        "1",
        "wire",
        change_pct is not None,
        {END: 0.5, **known},
        [change_pct] * len(PATH_S) if change_pct is not None else (),
    )
    return found._replace(**fields)  # type: ignore[arg-type]


def text(cases: list[Case], unusable: int = 0) -> str:
    found = results_text.text(cases, unusable)
    assert max(map(len, found.splitlines())) <= WIDTH
    return found


def test_figures_stand_in_columns_with_their_intervals() -> None:
    found = text([case(number, 3.0) for number in range(30)])
    assert found.startswith("30 windows, 30 of them alerted, 30 followed up.\n")
    assert re.search(
        r"^after 5 min       30 +\+3\.0 \(\+3\.0,\+3\.0\) +100 \(89,100\)"
        r" +\+3\.0 \(\+3\.0,\+3\.0\)   0\.0$",
        found,
        re.M,
    )
    assert "By source, after 5 min:\n  wire            30" in found


def test_wide_figures_and_long_names_do_not_break_the_columns() -> None:
    found = text([case(number, -1234.5, source="a very long name" * 3) for number in range(30)])
    assert "-1234 (-1234,-1234)" in found
    assert "  a very long na  30" in found
    assert "(0.0,0.0)" in text([case(number, -0.01) for number in range(30)])


def test_few_windows_say_so_in_place_of_figures() -> None:
    found = text([case(number) for number in range(4)], unusable=2)
    assert "4 followed up; 2 had too few prices to judge." in found
    assert found.count(TOO_FEW) == 2 + 5
    assert results_text.text([], 3) == results_text.NOTHING


def test_the_best_and_the_worst_are_listed_once() -> None:
    found = text([case(number, float(number)) for number in range(7)])
    best, worst = re.findall(r"after 5 min:\n((?:  T.*\n)+)", f"{found}\n")
    assert [line.split()[0] for line in best.splitlines()] == ["T6", "T5", "T4", "T3", "T2"]
    assert [line.split()[0] for line in worst.splitlines()] == ["T0", "T1"]
    assert "T6       2023-11-14 22:13:32 UTC     2.0000    +6.0 %" in best
    assert "Worst" not in text([case()])
    assert "Best" not in text([case(alerted=False, priority="")])


def test_the_method_and_its_limits_stand_below() -> None:
    found = results_text.method()
    assert max(map(len, found.splitlines())) <= WIDTH
    for limit in (
        "No fees and no slippage",
        "a sample",
        "not independent",
        "halted",
        "Survivors",
        TOO_FEW,
    ):
        assert limit in found


@pytest.mark.parametrize("change_pct", [1.23456, None])
def test_a_csv_file_has_each_windows_changes_and_leaves_out_what_is_not_known(
    change_pct: float | None,
) -> None:
    header, row = results_text.windows_rows([case(0, change_pct)])
    found = dict(zip(header, row, strict=True))
    assert (found["ticker"], found["windows"], found["price_band"]) == (
        "T0",
        "alerted",
        "2 to 5 USD",
    )
    assert (found["first_row"], found["at"]) == (
        "2023-11-14T22:13:20+00:00",
        "2023-11-14T22:13:26+00:00",
    )
    assert found["window's end %"] == 0.5
    assert found["after 5 min %"] == ("" if change_pct is None else 1.2346)
    assert found["after 30 min %"] == ""


def test_csv_files_of_groups_and_paths_have_all_figures() -> None:
    cases = [case(number, 3.0) for number in range(30)]
    header, *rows = results_text.groups_rows(lines(cases))
    found = [dict(zip(header, row, strict=True)) for row in rows]
    [main] = [row for row in found if row["measure"] == after(5) and row["grouping"] == "all"]
    assert (main["n"], main["enough"], main["median_pct"], main["above_zero"]) == (30, 1, 3.0, 1.0)
    header, first, *_ = results_text.paths_rows(cases)
    assert dict(zip(header, first, strict=True)) == {
        "seconds": 0,
        "n": 30,
        "lower_quartile_pct": 3.0,
        "median_pct": 3.0,
        "upper_quartile_pct": 3.0,
    }
