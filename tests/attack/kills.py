"""Forty kills at random moments over the embedded engine, and then the account of all that was.

`.venv/bin/python tests/attack/kills.py`. KILLS makes it shorter, ATTACK_SEED repeats a run's
moments. Exit code 0 only if every row and alert is there once, each alert has its copy in
`price_move`, and each trigger led to a row. No stock is rated BUY yet, so there are no alerts.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from clickhouse_manager import ClickHouseManager
from newshead.monitor.triggers import TriggerFolder
from newshead.settings import Settings
from simulator import Gateway, GatewayThread, Market

PROJECT: Final = Path(__file__).resolve().parents[2]
SLOT_S: Final = 2
TRADE_EVERY_S: Final = 0.4
# From one newshead's start to its kill; the engine opens within the first of these seconds.
LIFE_S: Final = (2.0, 9.0)
# For the last triggers to get their rows, and for alerts to be judged.
SETTLE_S: Final = 20.0
# No rise lasts longer: prices stay in the alert rule's range.
RISE: Final = 1.004
READY_S: Final = 120.0


class Attack:
    """One run."""

    def __init__(self, seed: str, kills: int, folder: Path) -> None:
        self.dice = random.Random(seed)
        self.kills = kills
        self.folder = folder
        self.tickers = [f"K{number}" for number in range(kills)]
        self.settings = Settings(clickhouse_path=folder / "data" / "clickhouse")
        self.triggers = TriggerFolder(folder / "triggers")
        self.triggered: list[str] = []
        self._ended = threading.Event()

    def run(self) -> list[str]:
        """Return what is not as it must be."""
        with GatewayThread(Gateway(Market(symbols=self.tickers))) as thread:
            trading = threading.Thread(target=self._trade, args=(thread,), daemon=True)
            trading.start()
            for number in range(self.kills):
                with self._newshead(thread.gateway.port) as newshead:
                    life_s = self.dice.uniform(*LIFE_S)
                    time.sleep(life_s / 2)
                    self.triggers.write(self.tickers[number])
                    self.triggered.append(self.tickers[number])
                    time.sleep(life_s / 2)
                    newshead.kill()
                print(f"kill {number + 1} after {life_s:.1f} s", flush=True)
            with self._newshead(thread.gateway.port) as newshead:
                time.sleep(SETTLE_S)
                newshead.send_signal(signal.SIGTERM)
                code = newshead.wait(READY_S)
            self._ended.set()
            trading.join()
        return [*([f"the last newshead ended with code {code}"] if code else []), *self._account()]

    def _newshead(self, port: int) -> "subprocess.Popen[bytes]":
        with (self.folder / "output").open("ab") as output:
            return subprocess.Popen(
                [sys.executable, str(PROJECT / "run_system.py"), "--skip-list", "--keep-session"],
                cwd=self.folder,
                env=os.environ | {"IBKR_PORT": str(port), "SESSION_ROLL": "off"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def _trade(self, thread: GatewayThread) -> None:
        """Let the price of each ticker rise from its trigger on."""
        prices: dict[str, float] = {}
        while not self._ended.wait(TRADE_EVERY_S):
            for ticker in tuple(self.triggered):
                prices[ticker] = min(10.5, prices.get(ticker, 2.0) * RISE)
                thread.call(thread.gateway.trade, ticker, prices[ticker], 100)

    def _account(self) -> list[str]:
        manager = ClickHouseManager(self.settings)
        manager.connect()
        try:
            rows = manager.rows(
                "SELECT ticker, toUnixTimestamp(timestamp) FROM News.price_tracking"
            )
            alerts = manager.rows("SELECT ticker, timestamp FROM News.news_alert")
            copies = manager.rows(
                "SELECT ticker, toDateTime(current_price_timestamp) FROM News.price_move"
            )
        finally:
            manager.close()
        slots = Counter((ticker, second // SLOT_S) for ticker, second in rows)
        problems = [f"a second row: {slot}" for slot, count in slots.items() if count > 1]
        told = Counter(map(tuple, alerts))
        copied = Counter(map(tuple, copies))
        problems += [f"a second alert: {alert}" for alert, count in told.items() if count > 1]
        problems += [f"an alert and its copies differ: {one}" for one in told - copied]
        problems += [f"a copy without an alert: {one}" for one in copied - told]
        seen = {ticker for ticker, _ in rows}
        problems += [f"the trigger of {ticker} led to no row" for ticker in {*self.tickers} - seen]
        left = [path.name for path in self.triggers.folder.glob("*.json")]
        problems += [f"triggers were left behind: {left}"] if left else []
        print(f"{len(rows)} rows, {len(told)} alerts, {len(seen)} tickers with rows")
        return problems


def main() -> int:
    """Run the attack; return the exit code."""
    seed = os.environ.get("ATTACK_SEED") or str(random.randrange(10**6))
    kills = int(os.environ.get("KILLS") or 40)
    print(f"ATTACK_SEED={seed}, {kills} kills", flush=True)
    with tempfile.TemporaryDirectory() as name:
        problems = Attack(seed, kills, Path(name)).run()
        for problem in problems:
            print(problem)
        if problems:
            print((Path(name) / "output").read_text(errors="replace")[-20_000:])
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
