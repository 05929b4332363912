"""What the price monitor tells Prometheus and whoever asks for its health."""

import asyncio
import dataclasses
import logging
import shutil
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import pytest
from clickhouse_server import ClickHouseServer
from commands import Command
from monitoring import rate, requested, rows, running, tracked, trade_each_slot, until
from prometheus_client.parser import text_string_to_metric_families

import price_checker
from clickhouse_manager import ClickHouseManager
from newshead import __version__
from newshead.monitor import parts
from newshead.monitor.triggers import TriggerFolder
from newshead.process import EXIT_OK
from newshead.settings import Settings
from simulator import Gateway

pytestmark = pytest.mark.usefixtures("short_cycles")


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """With a port for the metrics."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return dataclasses.replace(settings, metrics_port=probe.getsockname()[1])


def get(settings: Settings, path: str) -> tuple[int, str]:
    try:
        url = f"http://127.0.0.1:{settings.metrics_port}{path}"
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read().decode()


async def health(settings: Settings) -> tuple[int, str]:
    try:
        return await asyncio.to_thread(get, settings, "/healthz")
    except urllib.error.URLError:
        return 0, "nobody answers"


async def figures(settings: Settings) -> dict[str, float]:
    status, text = await asyncio.to_thread(get, settings, "/metrics")
    assert status == 200
    return {
        sample.name + "".join(f"/{value}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def becomes(settings: Settings, status: int, reason: str) -> None:
    """Waits until the health is such."""
    for _ in range(200):
        found = await health(settings)
        if found[0] == status and reason in found[1]:
            assert found[1].count("\n") == 1
            return
        await asyncio.sleep(0.1)
    pytest.fail(f"the health stays {found}")


async def test_the_figures_are_those_of_the_monitor_when_they_are_asked_for(
    settings: Settings, gateway: Gateway, database: ClickHouseManager
) -> None:
    rate(database, "ABCD", "BUY")
    async with running(settings) as monitor:
        before = await figures(settings)
        assert (
            before["newshead_ticks_total"] == before["newshead_cycle_duration_seconds_count"] == 0
        )
        assert "newshead_tick_age_seconds" not in before
        await tracked(gateway, settings)
        TriggerFolder(settings.trigger_folder).write("ABCD")
        await trade_each_slot(gateway, "ABCD", [2.0, 2.01, 2.2])
        await until(lambda: monitor.stats["alerts_triggered"], "the alert")
        # A cycle counts when it is over, which is after its alerts.
        cycles = monitor.stats["cycles"]
        await until(lambda: monitor.stats["cycles"] > cycles, "the end of the alert's cycle")
        found = await figures(settings)
        assert found["newshead_ticks_total"] == found["newshead_rows_total"] == 3
        assert found["newshead_alerts_total"] == found["newshead_active_tickers"] == 1
        assert found["newshead_kept_rows"] == found["newshead_reconnects_total"] == 0
        assert found["newshead_connection/ready"] == 1
        assert found["newshead_connection/stale"] == 0
        assert 0 <= found["newshead_tick_age_seconds"] < 60
        assert found["newshead_cycle_duration_seconds_count"] >= 3
        assert found["newshead_cycle_duration_seconds_count"] <= found["newshead_cycles_total"]
        # The second trigger asked for nothing.
        assert found["newshead_trigger_to_request_duration_seconds_count"] == 1
        assert -0.1 < found["newshead_trigger_to_request_duration_seconds_sum"] < 5
    with pytest.raises(urllib.error.URLError):
        await figures(settings)


async def test_the_monitor_is_healthy_only_while_it_is_connected_and_keeps_nothing_back(
    settings: Settings,
    gateway: Gateway,
    database: ClickHouseManager,
    server: ClickHouseServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parts, "MAX_CYCLE_AGE_S", 3.0)
    monkeypatch.setattr("newshead.monitor.keeper.RETRY_S", 0.2)
    async with running(settings):
        await becomes(settings, 200, "ok")
        await tracked(gateway, settings)
        server.fault("error", match="INSERT INTO News.price", code=243, text="no space")
        gateway.trade("ABCD", 2.0, 1)
        await becomes(settings, 503, "1 rows are kept because ClickHouse does not take them")
        server.clear_faults()
        await becomes(settings, 200, "ok")
        assert len(rows(database)) == 1
        server.fault("hang", match="price_tracking")
        await becomes(settings, 503, "the last cycle ended")
        server.clear_faults()
        await becomes(settings, 200, "ok")
        await gateway.stop()
        await becomes(settings, 503, "ibkr: not connected to IBKR")
        await gateway.start()
        await becomes(settings, 200, "ok")
        assert (await asyncio.to_thread(get, settings, "/other"))[0] == 404


async def test_a_monitor_that_waits_for_its_database_is_not_healthy(
    settings: Settings, server: ClickHouseServer, database: ClickHouseManager
) -> None:
    server.fault("hang", match="system.databases")
    starting = asyncio.create_task(_run_for_a_while(settings))
    await becomes(settings, 503, "no cycle has ended yet")
    server.clear_faults()
    await becomes(settings, 200, "ok")
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    assert rows(database) == []


async def _run_for_a_while(settings: Settings) -> None:
    async with running(settings):
        await asyncio.sleep(60)


@pytest.mark.usefixtures("database")
async def test_the_names_follow_the_conventions_of_prometheus(settings: Settings) -> None:
    promtool = shutil.which("promtool")
    async with running(settings):
        _, text = await asyncio.to_thread(get, settings, "/metrics")
    assert f'newshead_build_info{{version="{__version__}"}} 1.0' in text
    assert "\nprocess_cpu_seconds_total " in text
    assert 'newshead_part_state{part="trigger folder",state="ok"} 1.0' in text
    assert "_created" not in text
    if promtool is None:
        pytest.skip("promtool, of Prometheus, is not installed here")
    found = await asyncio.to_thread(
        subprocess.run, [promtool, "check", "metrics"], input=text, text=True, capture_output=True
    )
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.usefixtures("database")
async def test_a_port_that_is_taken_is_one_line_and_the_monitor_goes_on(
    settings: Settings, gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", settings.metrics_port)):
        async with running(settings):
            await tracked(gateway, settings)
    assert requested(gateway) == ["ABCD"]
    [line] = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert "METRICS_PORT" in line.getMessage()
    assert line.exc_info is None


@pytest.mark.usefixtures("database")
async def test_a_thousand_silent_connections_cost_no_trigger_no_cycle_and_no_figure(
    settings: Settings, gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="newshead.listening")
    address = ("127.0.0.1", settings.metrics_port)
    async with running(settings) as monitor:
        with ExitStack() as stack:
            for _ in range(1000):
                stranger = await asyncio.to_thread(socket.create_connection, address, 20)
                stack.enter_context(stranger).sendall(b"GET /metr")
            threads = [t for t in threading.enumerate() if "process_request" in t.name]
            assert len(threads) < 100
            await tracked(gateway, settings)
            cycles = monitor.stats["cycles"]
            await until(lambda: monitor.stats["cycles"] > cycles + 2, "more cycles")
            assert (await health(settings))[0] == 200
            assert (await figures(settings))["newshead_active_tickers"] == 1
    lines = [r.getMessage() for r in caplog.records if "connections at once" in r.getMessage()]
    assert len(lines) == 1
    assert "The metrics port turned away" in lines[0]


def test_without_a_port_the_library_is_not_even_loaded() -> None:
    code = "import sys, run_system; sys.exit('prometheus_client' in sys.modules)"
    root = Path(price_checker.__file__).parent
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


async def test_newshead_serves_it_from_the_price_monitors_process(
    settings: Settings, database: ClickHouseManager, tmp_path: Path
) -> None:
    newshead = Command(
        tmp_path,
        "run_system.py",
        "--skip-list",
        CLICKHOUSE_HOST=settings.clickhouse_host,
        CLICKHOUSE_PORT=settings.clickhouse_port,
        IBKR_PORT=settings.ibkr_port,
        METRICS_PORT=settings.metrics_port,
    )
    try:
        await becomes(settings, 200, "ok")
        assert (await figures(settings))["newshead_connection/ready"] == 1
        newshead.process.terminate()
        assert await asyncio.to_thread(newshead.ends) == EXIT_OK
    finally:
        newshead.process.kill()
        newshead.process.wait()
    assert await health(settings) == (0, "nobody answers")
    assert rows(database) == []
