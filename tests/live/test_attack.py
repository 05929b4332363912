"""The attack by kills in short: two of them over the embedded engine, with an alert after each."""

import os
import subprocess
import sys
from pathlib import Path

KILLS = Path(__file__).resolve().parents[1] / "attack" / "kills.py"
# Both newsheads live for some 5 s.
SEED = "33"


def test_kills_cost_no_row_no_alert_and_no_trigger_and_double_none(tmp_path: Path) -> None:
    environment = os.environ | {"KILLS": "2", "ATTACK_SEED": SEED, "TMPDIR": str(tmp_path)}
    attack = subprocess.run(
        [sys.executable, str(KILLS)],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert attack.returncode == 0, attack.stdout + attack.stderr
