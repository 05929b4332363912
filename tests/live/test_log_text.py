"""What others say, in the log: one visible line, whatever it is."""

import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
PROGRAM = r"""
import logging
from pathlib import Path
from newshead.logs import configure_logging
configure_logging(Path("logs"), rotate=False)
log = logging.getLogger("ibkr_client")
log.warning("TWS says: %s", "\x1b[2J\x9b31m \u202egnp.exe\r\n2026-11-28 ERROR a forged line")
try:
    raise ValueError("\x1b]0;title\x07")
except ValueError:
    log.exception("Reading %s failed.", "a\u2066b")
"""


def test_nothing_that_others_say_steers_a_terminal_or_forges_a_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env={"PYTHONPATH": str(PROJECT)},
        capture_output=True,
        check=True,
    )
    text = (tmp_path / "logs" / "newshead.log").read_text(encoding="utf-8")
    assert text.startswith(done.stderr.decode())
    assert len(done.stderr.splitlines()) == 2
    assert all(line.isprintable() for line in text.splitlines())
    first, second, *trace = text.split("\n")
    assert first.endswith("TWS says:  [2J 31m  gnp.exe  2026-11-28 ERROR a forged line")
    assert "Reading a b failed. ValueError:  ]0;title  (bug " in second
    assert trace[0] == "Traceback (most recent call last):"
    assert trace[-2] == "ValueError:  ]0;title "
