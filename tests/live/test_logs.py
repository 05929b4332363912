"""The log goes on whatever becomes of its file and its console, and says what it dropped."""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from commands import PROJECT, until

# Logs a numbered line twenty times a second, until standard input ends.
NUMBERS = """
import logging, select, sys
from pathlib import Path
from newshead.logs import configure_logging
configure_logging(Path("logs"), rotate=%s)
number = 0
while not select.select([0], [], [], 0.05)[0]:
    logging.info("number %%d.", number)
    number += 1
logging.info("the end, %%d.", number)
"""


@contextlib.contextmanager
def numbers(rotate: bool, stderr: int | IO[bytes] = subprocess.DEVNULL) -> Iterator[None]:
    with subprocess.Popen(
        [sys.executable, "-c", NUMBERS % rotate],
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        stdin=subprocess.PIPE,
        stderr=stderr,
    ) as process:
        try:
            yield
            assert process.stdin is not None
            process.stdin.close()
            # A few times the second that the last lines may take.
            assert process.wait(10) == 0
        finally:
            process.kill()


def written() -> str:
    path = Path("logs/newshead.log")
    return path.read_text() if path.is_file() else ""


def shows(pattern: str) -> None:
    until(lambda: re.search(pattern, written()), lambda: f"{pattern}: {written()}")


@pytest.mark.parametrize("rotate", [True, False])
def test_the_log_is_written_anew_where_its_folder_was_removed(rotate: bool) -> None:
    with numbers(rotate):
        shows("number 2")
        Path("logs").rename("gone")
        shows("number")
    shows("the end")
    lines = Path("gone/newshead.log").read_text() + written()
    found = [int(number) for number in re.findall(r"number (\d+)\.", lines)]
    assert found == list(range(len(found)))


@pytest.mark.parametrize("rotate", [True, False])
def test_after_a_full_disk_the_log_says_how_many_lines_it_dropped(rotate: bool) -> None:
    log = Path("logs/newshead.log")
    log.parent.mkdir()
    log.symlink_to("/dev/full")
    console = Path("console")
    with console.open("wb") as stderr, numbers(rotate, stderr):
        # The file's lines are long past by then.
        until(lambda: "number 5" in console.read_text(), console.read_text)
        log.unlink()
        shows("number")
    dropped = int(re.findall(r"(\d+) lines of the log were dropped", written())[0])
    found = [int(number) for number in re.findall(r"number (\d+)\.", written())]
    assert found == list(range(dropped, dropped + len(found)))
    assert dropped > 0


def test_a_console_that_nobody_reads_stops_neither_the_file_nor_the_end() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, bytes(4096))
    os.set_blocking(writing, True)
    try:
        with numbers(rotate=True, stderr=writing):
            shows("number 5")
        shows("the end")
    finally:
        os.close(reading)
        os.close(writing)


def test_a_bug_is_one_line_with_a_reference_and_its_traceback_is_in_the_file_once(
    tmp_path: Path,
) -> None:
    script = """
import logging
from pathlib import Path
from newshead.logs import configure_logging
configure_logging(Path("logs"), rotate=True)
for number in range(3):
    try:
        {}["x"]
    except KeyError:
        logging.exception("Article %d failed.", number)
    try:
        [][7]
    except IndexError:
        logging.exception("Another bug.")
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(done.stderr.splitlines()) == 6
    references = re.findall(r"Article \d failed. KeyError: 'x' \(bug (\w+), its trace", done.stderr)
    assert len(references) == 3
    assert len(set(references)) == 1
    file = (tmp_path / "logs" / "newshead.log").read_text()
    assert file.count("Traceback") == 2
    assert file.count(references[0]) == 3
