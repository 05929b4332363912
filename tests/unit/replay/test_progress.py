"""What a long run says of itself."""

import sys

import pytest

from newshead.replay import progress
from newshead.replay.progress import Progress


def test_a_short_run_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    told = Progress()
    told("trades.csv", 0.5)
    told.end()
    assert capsys.readouterr() == ("", "")


def test_a_long_run_says_now_and_then_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "QUIET_S", 0)
    told = Progress()
    for share in (0.25, 0.26, 0.27):
        told("trades.csv", share)
    told.end()
    assert capsys.readouterr() == ("", "trades.csv: 25%\n")


def test_on_a_terminal_one_line_is_overwritten_and_cleared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "QUIET_S", 0)
    monkeypatch.setattr(progress, "TERMINAL_EVERY_S", 0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    told = Progress()
    for what in ("trades.csv", "judging"):
        told(what, 0.5)
    told.end()
    first, last = "trades.csv: 50%", "judging: 50%"
    width = len(first)
    assert capsys.readouterr().err == f"\r{first}\r{last:<{width}}\r{'':<{width}}\r"
