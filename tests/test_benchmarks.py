"""The benchmarks run and give figures; what the figures are is no matter here."""

import importlib
import logging

import pytest

from benchmarks.figures import Figure


@pytest.mark.parametrize("script", ["memory", "ticks"])
def test_a_benchmark_runs_and_gives_figures(script: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, logger="ibkr_client")  # which puts it back at the end
    figures: list[Figure] = importlib.import_module(f"benchmarks.{script}").measure(quick=True)
    assert figures
    for figure in figures:
        assert figure.value >= 0
        assert figure.reference_value is None or figure.reference_value > 0
        assert figure.ratio is None or figure.ratio > 0
