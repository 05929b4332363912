"""The same trades and news through the price monitor at work and through the replay of files."""

import asyncio
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from monitoring import rate, rows, running, shorten_windows, tracked, until

from clickhouse_manager import ClickHouseManager
from newshead.core.slots import SLOT_S
from newshead.replay.__main__ import main
from newshead.settings import Settings
from simulator import Gateway

WINDOW_S = 12
PRICES = [2.0, 2.02, 2.01, 2.09, 2.2]


def slots(stored: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Rows by their slots: the very second of a tick is the machine's to choose."""
    return [
        (
            row["timestamp"].timestamp() // SLOT_S,
            row["price"],
            row["volume"],
            row["recommendation"],
        )
        for row in stored
    ]


def files(trades: list[tuple[float, float, int]], opened: float) -> list[str]:
    """Options for the trades (Unix time, price, size) and for the news that opened the window."""
    begin = datetime.fromtimestamp(int(trades[0][0]), UTC)
    lines = [f"{at - begin.timestamp()},ABCD,{price},{size}\n" for at, price, size in trades]
    Path("trades.csv").write_text("".join(["seconds,ticker,price,size\n", *lines]))
    Path("news.csv").write_text(
        f"seconds,ticker,recommendation,confidence\n{opened - begin.timestamp()},ABCD,BUY,high\n"
    )
    return ["--csv", "trades.csv", "--news", "news.csv", "--begin", begin.isoformat()]


async def in_slot(share: float) -> float:
    """Wait for the next slot, and until this share of it has passed; give the Unix time."""
    await asyncio.sleep((1 - time.time() / SLOT_S % 1 + share) * SLOT_S)
    return time.time()


async def test_files_give_the_rows_alerts_and_outcome_that_live_gave(
    settings: Settings,
    gateway: Gateway,
    database: ClickHouseManager,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level("INFO")
    shorten_windows(monkeypatch, WINDOW_S)
    trades: list[tuple[float, float, int]] = []

    def trade(at: float, price: float, size: int) -> None:
        gateway.trade("ABCD", price, size)
        trades.append((at, price, size))

    def outcomes() -> list[str]:
        lines = [record.getMessage() for record in caplog.records]
        return [line for line in lines if line.startswith("Window of ABCD ended: ")]

    trade(time.time(), 1.9, 50)
    rate(database, "ABCD", "BUY")
    async with running(settings):
        opened = await in_slot(0.4)
        await tracked(gateway, settings)
        for number, price in enumerate(PRICES):
            trade(await in_slot(0.4), price + 0.01, 100 + number)
            trade(time.time(), price, 200 + number)
        await until(outcomes, "the window's end")

    capsys.readouterr()
    assert main([*files(trades, opened), "--json", "--rows"]) == 0
    replayed = json.loads(capsys.readouterr().out)

    for row in (*replayed["rows"], *replayed["alerts"]):
        row["timestamp"] = datetime.fromisoformat(row["timestamp"])
    assert slots(replayed["rows"]) == slots(rows(database))
    assert [(a["price"], a["alert"]) for a in replayed["alerts"]] == [
        (a["price"], a["alert"]) for a in rows(database, "news_alert")
    ]
    assert replayed["alerts"]
    [window] = replayed["windows"]
    assert outcomes() == [f"Window of ABCD ended: {window['outcome']}."]
