"""What `deploy/` holds, checked as far as it can be without systemd, Docker and Grafana at work."""

import fnmatch
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from clickhouse_server import ClickHouseServer
from monitoring import fresh, with_tables

from clickhouse_manager import ClickHouseManager
from newshead.database.store import Batch, insert
from newshead.database.tables import AlertRow, PriceRow, StatusRow
from newshead.settings import Settings

PROJECT = Path(__file__).resolve().parents[2]
DEPLOY = PROJECT / "deploy"

# The systemd unit


def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    command = shutil.which("systemd-analyze")
    if command is None:
        pytest.skip("there is no systemd-analyze on this machine")
    unit = (DEPLOY / "newshead.service").read_text()
    # The place that it is to be installed in is not there.
    here = unit.replace("/opt/newshead/.venv/bin/python", sys.executable)
    assert here != unit
    path = tmp_path / "newshead.service"
    path.write_text(here)
    verified = subprocess.run(
        [command, "verify", "--man=no", path], capture_output=True, text=True, check=False
    )
    # Keys it does not know are lines of its output, no failure.
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")


def test_the_unit_calls_run_system_with_flags_that_it_has() -> None:
    unit = (DEPLOY / "newshead.service").read_text()
    [called] = re.findall(r"^ExecStart=\S+/python \S+/run_system\.py (.*)$", unit, re.M)
    shown = subprocess.run(
        [sys.executable, PROJECT / "run_system.py", "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert all(flag in shown for flag in called.split())


# The compose file

COMPOSE_KEYS = {"name", "services", "volumes", "networks"}
SERVICE_KEYS = {
    "build",
    "cap_drop",
    "depends_on",
    "env_file",
    "environment",
    "extra_hosts",
    "healthcheck",
    "image",
    "ports",
    "read_only",
    "restart",
    "security_opt",
    "stop_grace_period",
    "tmpfs",
    "ulimits",
    "volumes",
}
HEALTH_KEYS = {"test", "interval", "timeout", "retries", "start_period"}
DURATION = re.compile(r"\d+(ms|s|m)")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return found


def test_the_compose_file_keeps_to_the_specification(compose: dict[str, Any]) -> None:
    assert compose.keys() <= COMPOSE_KEYS
    for name, service in compose["services"].items():
        assert service.keys() <= SERVICE_KEYS, name
        assert ("image" in service) != ("build" in service), name
        assert service["restart"] == "unless-stopped"
        health = service["healthcheck"]
        assert health.keys() <= HEALTH_KEYS
        assert health["test"][0] == "CMD"
        assert all(isinstance(word, str) for word in health["test"])
        for key in HEALTH_KEYS & health.keys() - {"test", "retries"}:
            assert DURATION.fullmatch(health[key]), (name, key)
        for value in service["environment"].values():
            assert isinstance(value, str), "YAML would make something else of it"
        for needed, how in service.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}
            assert "healthcheck" in compose["services"][needed]


def test_all_ports_are_published_on_loopback_only(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in service["ports"])


def test_folders_and_volumes_are_there(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for volume in service["volumes"]:
            source, inside = volume.split(":")
            assert inside.startswith("/")
            assert source.startswith("../") or source in compose["volumes"]
    build = compose["services"]["newshead"]["build"]
    root = (DEPLOY / build["context"]).resolve()
    assert root == PROJECT
    assert (root / build["dockerfile"]).is_file()


def test_variables_are_newsheads_and_their_values_are_taken(compose: dict[str, Any]) -> None:
    variables = set(Settings.variables())
    text = (DEPLOY / "compose.yaml").read_text()
    for service in compose["services"].values():
        assert service["environment"].keys() <= variables
    assert set(re.findall(r"\$\{(\w+)", text)) <= variables
    environment = {
        name: re.sub(r"\$\{\w+:\?[^}]*\}", "secret", value)
        for name, value in compose["services"]["newshead"]["environment"].items()
    }
    settings = Settings.from_environment(environment)
    assert settings.clickhouse_host in compose["services"]
    assert f"{settings.ibkr_host}:host-gateway" in compose["services"]["newshead"]["extra_hosts"]
    assert settings.dashboard_password == "secret"
    assert f"127.0.0.1:{settings.dashboard_port}:{settings.dashboard_port}" in text
    health = " ".join(compose["services"]["newshead"]["healthcheck"]["test"])
    assert f"http://127.0.0.1:{settings.metrics_port}/healthz" in health


def test_the_image_holds_all_that_newshead_loads(tmp_path: Path) -> None:
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().split()
    assert ignored[0] == "*"
    sent = [pattern[1:] for pattern in ignored if pattern.startswith("!")]
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    for source, target in re.findall(r"^COPY (\S+) (\S+)$", dockerfile, re.M):
        assert source in sent
        for path in PROJECT.iterdir():
            if fnmatch.fnmatch(path.name, source) and path.is_dir():
                shutil.copytree(path, tmp_path / target)
            elif fnmatch.fnmatch(path.name, source):
                shutil.copy(path, tmp_path)
    modules = (
        "run_system, price_checker, newshead.monitor.metrics, dashboard.__main__, dashboard.notify"
    )
    code = f"import {modules}; print(run_system.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == str(tmp_path / "run_system.py"), done.stderr


# The Grafana dashboard

GRAFANA = json.loads((DEPLOY / "grafana.json").read_text())


def queries() -> dict[str, str]:
    """Every query of the dashboard by where it stands."""
    found = {
        panel["title"]: target["rawSql"]
        for panel in GRAFANA["panels"]
        for target in panel["targets"]
    }
    for annotation in GRAFANA["annotations"]["list"]:
        found[f"annotation {annotation['name']}"] = annotation["target"]["rawSql"]
    for variable in GRAFANA["templating"]["list"]:
        if variable["type"] == "query":
            found[f"variable {variable['name']}"] = variable["query"]
    return found


def expanded(query: str) -> str:
    """The query as Grafana's ClickHouse plugin sends it, for the last hour."""
    end = int(time.time()) + 1
    begin = end - 3600
    for macro, text in (
        (r"\$__timeFilter\((\w+)\)", rf"\1 >= toDateTime({begin}) AND \1 <= toDateTime({end})"),
        (
            r"\$__timeFilter_ms\((\w+)\)",
            rf"\1 >= fromUnixTimestamp64Milli({begin}000) "
            rf"AND \1 <= fromUnixTimestamp64Milli({end}000)",
        ),
        (r"\$__timeInterval\((\w+)\)", r"toStartOfInterval(toDateTime(\1), INTERVAL 10 second)"),
        (r"\$\{ticker:singlequote\}", "'ABCD','EFGH'"),
    ):
        query = re.sub(macro, text, query)
    assert "$" not in query.replace("' $'", ""), "a macro that is not known here"
    return query


@pytest.fixture(scope="module")
def session(clickhouse: ClickHouseServer) -> Iterator[ClickHouseManager]:
    """A database with something in every table that the dashboard reads."""
    settings = Settings(clickhouse_host=clickhouse.host, clickhouse_port=clickhouse.port)
    with fresh(clickhouse, settings), with_tables(settings) as manager:
        fill(manager)
        yield manager


def fill(manager: ClickHouseManager) -> None:
    now = datetime.now(UTC)
    numbers = (1, 2, 3, 4, 5.0, 6, 7, 0.0)
    for row in (
        PriceRow(now, "ABCD", 2.0, 1, "x", "p", "BUY", "high"),
        AlertRow("ABCD", now, 1, 2.2),
        StatusRow(
            now, "ready", now, "PAPER", False, "*****67", *numbers, "12:00:00 UTC It failed."
        ),
    ):
        insert(manager.client, Batch([row], "token"))


@pytest.mark.parametrize("title", queries())
def test_a_query_of_the_grafana_dashboard_gives_rows(
    session: ClickHouseManager, title: str
) -> None:
    result = session.client.query(expanded(queries()[title]))
    assert len(result.result_rows) == 1
    assert all(value not in (None, "") for value in result.result_rows[0])


def test_the_grafana_dashboard_is_laid_out_without_gaps_in_its_wiring() -> None:
    panels = GRAFANA["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
        assert at["x"] + at["w"] <= 24
    variables = {variable["name"] for variable in GRAFANA["templating"]["list"]}
    assert set(re.findall(r"\$\{(\w+)", json.dumps(GRAFANA))) == variables
    tables = set(re.findall(r"FROM News\.(\w+)", json.dumps(GRAFANA)))
    assert tables == {"monitor_status", "price_tracking", "news_alert"}
