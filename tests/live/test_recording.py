"""A monitor at work that records, and the recording played again."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from monitoring import rate, rows, running, tracked, trade_each_slot, until

from clickhouse_manager import ClickHouseManager
from newshead.replay.played import ALERTS, PRICES, Played
from newshead.replay.recorded import play
from newshead.settings import Settings
from simulator import Gateway

pytestmark = pytest.mark.usefixtures("short_cycles")

PRICES_WITH_ALERT = [2.0, 2.02, 2.01, 2.09, 2.2, 2.22]


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return replace(settings, record_folder=tmp_path / "recordings")


def recording(settings: Settings) -> Path:
    """The one recording."""
    assert settings.record_folder is not None
    (path,) = settings.record_folder.iterdir()
    return path


def compare(played: Played, database: ClickHouseManager) -> None:
    stored = [(r["ticker"], r["price"], r["volume"], r["recommendation"]) for r in rows(database)]
    replayed = [(t, p, v, r) for _, t, p, v, _, _, r, _ in played.rows[PRICES]]
    assert replayed == stored
    alerts = [(r["ticker"], r["timestamp"], r["alert"], r["price"]) for r in rows(database, ALERTS)]
    assert [tuple(row) for row in played.rows.get(ALERTS, [])] == alerts


async def test_a_replay_makes_the_same_requests_rows_and_alerts(
    gateway: Gateway, settings: Settings, database: ClickHouseManager
) -> None:
    rate(database, "ABCD", "BUY")
    async with running(settings):
        await tracked(gateway, settings)
        await trade_each_slot(gateway, "ABCD", PRICES_WITH_ALERT)
        await until(lambda: rows(database, ALERTS), "an alert")
    played = await asyncio.to_thread(play, recording(settings))
    assert played.summary.startswith(f"{recording(settings)}: the same")
    assert played.whole
    assert played.requests
    compare(played, database)
