"""Each benchmark runs and gives figures; whether they are good is no test's business."""

import math

import pytest

import benchmarks
from benchmarks.chromium import CHROMIUM
from benchmarks.figures import Figure, Target, table


@pytest.mark.parametrize("script", benchmarks.scripts())
def test_a_benchmark_gives_its_figures(script: str) -> None:
    if script == "browser" and CHROMIUM is None:
        pytest.skip("no chromium is installed here")
    figures = benchmarks.run(script, quick=True)
    assert figures
    for figure in figures:
        assert math.isfinite(figure.value)
        assert table([figure])


@pytest.mark.parametrize(
    ("value", "reference", "target", "met"),
    [
        (4.9, None, Target(5), True),
        (5.1, None, Target(5), False),
        (5.1, None, Target(5, at_least=True), True),
        (50, 20, Target(2.5, of_ratio=True), True),
        (51, 20, Target(2.5, of_ratio=True), False),
        (90, 20, Target(5, at_least=True, of_ratio=True), False),
        (90, 20, None, None),
        (90, None, Target(5, of_ratio=True), None),
    ],
)
def test_a_target_is_a_limit_on_the_figure_or_on_its_ratio(
    value: float, reference: float | None, target: Target | None, met: bool | None
) -> None:
    assert Figure("x", value, "ms", "floor", reference, target).met is met


def test_the_table_shows_each_figure_beside_its_reference_and_target() -> None:
    shown = table(
        [
            Figure("ticks", 123_456, "1/s", "official client", 20_000, Target(5, True, True)),
            Figure("stall", 31.26, "ms", target=Target(20)),
        ]
    )
    assert [[cell.strip() for cell in line.split("|")[1:-1]] for line in shown.split("\n")[2:]] == [
        ["ticks", "123,456 1/s", "20,000 1/s (official client)", "6.17 ×", "≥ 5 ×", "met"],
        ["stall", "31.3 ms", "", "", "≤ 20 ms", "MISSED"],
    ]
