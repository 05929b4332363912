"""The Makefile's set-up, with a stand-in for Python so that nothing is installed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import PROJECT

# Runs what `-c` holds as an older Python would; its environments hold a pip that does nothing.
STAND_IN = """#!/bin/sh
if [ "$1" = -c ]; then
    exec {python} -c 'import sys; sys.version_info = {version}; exec(sys.argv[1])' "$2"
fi
mkdir -p "$3/bin" && ln -s /bin/true "$3/bin/pip"
"""


def make(
    folder: Path, target: str, version: tuple[int, int, int]
) -> subprocess.CompletedProcess[str]:
    for name in ("Makefile", *(path.name for path in PROJECT.glob("requirements*.txt"))):
        shutil.copy2(PROJECT / name, folder)
    python = folder / "python"
    python.write_text(STAND_IN.format(python=sys.executable, version=version))
    python.chmod(0o755)
    # The tests may be run by make themselves.
    environment = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    return subprocess.run(
        ["make", f"PYTHON={python}", target],  # noqa: S607
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("target", [".venv/runtime", ".venv/dev"])
def test_installing_says_what_it_does_how_much_it_takes_and_that_it_is_once(
    tmp_path: Path, target: str
) -> None:
    done = make(tmp_path, target, (3, 11, 0))
    assert done.returncode == 0, done.stderr
    first, second, third = done.stdout.splitlines()
    assert "once" in first
    assert "environment" in second
    assert "installing" in third
    assert " GB on disk" in third
    assert make(tmp_path, target, (3, 11, 0)).stdout == f"make: '{target}' is up to date.\n"


def test_a_python_that_is_too_old_is_refused_in_one_sentence(tmp_path: Path) -> None:
    done = make(tmp_path, ".venv/runtime", (3, 10, 12))
    assert done.returncode != 0
    told, makes_own = done.stderr.splitlines()
    assert told.startswith("newshead needs Python 3.11 or later, but ")
    assert "make PYTHON=python3.12" in told
    assert makes_own.startswith("make: ***")
    assert done.stdout == ""
    assert not (tmp_path / ".venv").exists()
