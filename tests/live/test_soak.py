"""The soak in short: a minute of `make soak` with a fixed seed, with both kinds of kills in it."""

import os
import subprocess
import sys
from pathlib import Path

SOAK = Path(__file__).resolve().parents[1] / "soak.py"
# In its first minute: kills of the monitor, faults of the database and of the gateway, many alerts.
SEED = "6"


def test_a_minute_among_faults_leaves_the_account_in_order(tmp_path: Path) -> None:
    environment = dict(os.environ) | {
        "SOAK_SECONDS": "60",
        "SOAK_SEED": SEED,
        "TMPDIR": str(tmp_path),
    }
    soak = subprocess.run(
        [sys.executable, str(SOAK)],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert soak.returncode == 0, soak.stdout + soak.stderr
