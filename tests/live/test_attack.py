"""The attacks by kills over the embedded engine in short; whole, they are run by hand."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ATTACKS = Path(__file__).resolve().parents[1] / "attack"


@pytest.mark.parametrize(
    ("script", "kills", "seed"),
    # With this seed both newsheads live for some 5 s.
    [("kills.py", 2, "33"), ("moves.py", 4, "20261128")],
)
def test_kills_cost_no_row_no_alert_and_no_trigger_and_double_none(
    tmp_path: Path, script: str, kills: int, seed: str
) -> None:
    attack = subprocess.run(
        [sys.executable, str(ATTACKS / script)],
        env=os.environ | {"KILLS": str(kills), "ATTACK_SEED": seed, "TMPDIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert attack.returncode == 0, attack.stdout + attack.stderr
