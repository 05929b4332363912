"""What every test has: a folder of its own to work in, and none of the user's settings."""

import os
import random
import resource
from importlib.util import find_spec
from pathlib import Path

import pytest

from newshead.settings import Settings

# It stands in the names of tests, which all workers of a run must agree on.
os.environ.setdefault("ALERT_RULE_SEED", str(random.randrange(10**6)))

# The engine keeps a few descriptors each time it is opened, until the process ends.
_soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (max(_soft, min(8192, _hard)), _hard))

# The environment of the old client's tests has no ClickHouse.
pytest_plugins = ["commands", "monitoring", "watching"] if find_spec("clickhouse_connect") else []
if find_spec("playwright"):
    pytest_plugins.append("browsing")


@pytest.fixture(autouse=True)
def nothing_of_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads `.env` or a variable of the user."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.variables():
        monkeypatch.delenv(name, raising=False)
