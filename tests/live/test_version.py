"""One version number: every command prints it, and the changelog's newest release bears it."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from newshead import __version__

PROJECT = Path(__file__).resolve().parents[2]

NEWSHEAD = [
    ["run_system.py"],
    ["price_checker.py"],
    ["testfiles/test_ibkr_connection.py"],
    ["-m", "dashboard"],
    ["-m", "dashboard.notify"],
    ["-m", "newshead.replay"],
    ["-m", "newshead.results"],
    ["-m", "benchmarks"],
]
SIMULATOR = [
    ["-m", module]
    for module in (
        "simulator",
        "simulator.news",
        "simulator.alpaca",
        "simulator.feeds",
        "simulator.ratings",
    )
]


@pytest.mark.parametrize(
    ("command", "name"),
    [*((command, "newshead") for command in NEWSHEAD), *((c, "simulator") for c in SIMULATOR)],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_a_command_prints_the_version(command: list[str], name: str) -> None:
    done = subprocess.run(
        [sys.executable, *command, "--version"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{name} {__version__}\n", "")


def test_the_newest_release_in_the_changelog_has_this_version() -> None:
    changelog = (PROJECT / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## \[(.+?)\](?: - (.+))?$", changelog, re.M)
    assert headings[0] == ("Unreleased", "")
    assert headings[1][0] == __version__
    assert all(re.fullmatch(r"\d{4}-\d{2}-\d{2}", date) for _, date in headings[1:])


def test_pyproject_takes_the_version_from_the_package() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert "version" not in project["project"]
    attribute = project["tool"]["setuptools"]["dynamic"]["version"]["attr"]
    assert attribute == "newshead.__version__"
