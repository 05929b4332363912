"""What every test has: a folder of its own to work in, and none of the user's settings."""

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def nothing_of_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads `.env` or an IBKR_, CLICKHOUSE_ or key variable of the user."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("IBKR_", "CLICKHOUSE_", "BENZINGA_")):
            monkeypatch.delenv(name)
