"""Forty kills at random moments over the embedded engine, and then the account of all that was.

`.venv/bin/python tests/attack/kills.py`. KILLS makes it shorter, ATTACK_SEED repeats a run's
moments. Exit code 0 only if every row is there once, just those that the alert rule holds for have
their alert and its copy in `price_move`, once, and each trigger led to a row and a rating.
"""

import asyncio
import json
import os
import random
import re
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
from newshead.core.rule import PricePoint, judge
from newshead.settings import Settings
from simulator import Gateway, GatewayThread, Market, MessagesServer, ScriptedRating

PROJECT: Final = Path(__file__).resolve().parents[2]
SLOT_S: Final = 2
TRADE_EVERY_S: Final = 0.4
# From one newshead's start to its kill; the engine opens within the first of these seconds.
LIFE_S: Final = (2.0, 9.0)
# What is logged once the last rows are stored and judged.
NOTHING_LEFT: Final = r"(?s)(: 0 rows, \d+ active tickers.*){2}"
# Between two trades; at most up to HIGHEST, in the alert rule's range.
RISE: Final = 1.008
HIGHEST: Final = 10.5
READY_S: Final = 120.0


class Attack:
    """One run."""

    def __init__(self, seed: str, tickers: list[str], folder: Path, rating_url: str) -> None:
        self.dice = random.Random(seed)
        self.folder = folder
        self.tickers = tickers
        self.rating_url = rating_url
        self.settings = Settings(clickhouse_path=folder / "data" / "clickhouse")
        self.triggers = folder / "triggers"
        self.triggered: list[str] = []
        self._ended = threading.Event()

    def run(self) -> list[str]:
        """Return what is not as it must be."""
        with GatewayThread(Gateway(Market(symbols=self.tickers))) as thread:
            trading = threading.Thread(target=self._trade, args=(thread,), daemon=True)
            trading.start()
            for number, ticker in enumerate(self.tickers, 1):
                with self._newshead(thread.gateway.port) as newshead:
                    life_s = self.dice.uniform(*LIFE_S)
                    time.sleep(life_s / 2)
                    self._trigger(ticker)
                    time.sleep(life_s / 2)
                    newshead.kill()
                print(f"kill {number} after {life_s:.1f} s", flush=True)
            with self._newshead(thread.gateway.port) as newshead:
                told = self._await(f"ALERT . for {self.tickers[-1]}")
                self._ended.set()
                trading.join()
                judged = self._await(NOTHING_LEFT, len(self.output()))
                newshead.send_signal(signal.SIGTERM)
                code = newshead.wait(READY_S)
        problems = [] if told else ["the last ticker had no alert"]
        problems += [] if judged else ["the last rows were not judged in time"]
        problems += [f"the last newshead ended with code {code}"] if code else []
        return [*problems, *self._account()]

    def _newshead(self, port: int) -> "subprocess.Popen[bytes]":
        with (self.folder / "output").open("ab") as output:
            return subprocess.Popen(
                [sys.executable, str(PROJECT / "run_system.py"), "--skip-list", "--keep-session"],
                cwd=self.folder,
                env=os.environ
                | {
                    "IBKR_PORT": str(port),
                    "SESSION_ROLL": "off",
                    "ANTHROPIC_API_KEY": "any",
                    "ANTHROPIC_BASE_URL": self.rating_url,
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def _trigger(self, ticker: str) -> None:
        path = self.triggers / f"immediate_{ticker}_1.json"
        self.triggers.mkdir(exist_ok=True)
        path.with_suffix(".new").write_text(
            json.dumps({"ticker": ticker, "headline": f"{ticker} wins"})
        )
        path.with_suffix(".new").rename(path)
        self.triggered.append(ticker)

    def _await(self, pattern: str, since: int = 0) -> bool:
        """Return whether what is logged from a place in the log on shows a pattern in time."""
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            if re.search(pattern, self.output()[since:]):
                return True
            time.sleep(0.2)
        return False

    def output(self) -> str:
        """Return what all of them wrote."""
        return (self.folder / "output").read_text(errors="replace")

    def _trade(self, thread: GatewayThread) -> None:
        """Let the price of each ticker rise from its trigger on."""
        prices: dict[str, float] = {}
        while not self._ended.wait(TRADE_EVERY_S):
            for ticker in tuple(self.triggered):
                prices[ticker] = min(HIGHEST, prices.get(ticker, 2.0) * RISE)
                thread.call(thread.gateway.trade, ticker, prices[ticker], 100)

    def _account(self) -> list[str]:
        manager = ClickHouseManager(self.settings)
        manager.connect()
        try:
            rows = manager.rows(
                "SELECT ticker, toUnixTimestamp(timestamp), price, volume, recommendation "
                "FROM News.price_tracking ORDER BY ticker, timestamp"
            )
            alerts = manager.rows("SELECT ticker, toUnixTimestamp(timestamp) FROM News.news_alert")
            copies = manager.rows(
                "SELECT ticker, toUnixTimestamp(current_price_timestamp) FROM News.price_move"
            )
            rated = manager.rows(
                "SELECT ticker FROM News.breaking_news WHERE recommendation = 'BUY'"
            )
        finally:
            manager.close()
        slots = Counter((ticker, second // SLOT_S) for ticker, second, *_ in rows)
        problems = [f"a second row: {slot}" for slot, count in slots.items() if count > 1]
        windows: dict[str, list[PricePoint]] = {}
        for ticker, *point in rows:
            windows.setdefault(ticker, []).append(PricePoint(*point))
        due = Counter(
            (ticker, row.time)
            for ticker, points in windows.items()
            for row in judge(points)
            if row.qualifies
        )
        for name, table in (("news_alert", alerts), ("price_move", copies)):
            found = Counter(map(tuple, table))
            problems += [f"missing in {name}: {alert}" for alert in due - found]
            problems += [f"once too often in {name}: {alert}" for alert in found - due]
        unrated = {*self.tickers} - {ticker for (ticker,) in rated}
        problems += [f"the news of {ticker} has no rating" for ticker in unrated]
        seen = {*windows}
        problems += [f"the trigger of {ticker} led to no row" for ticker in {*self.tickers} - seen]
        left = [path.name for path in self.triggers.glob("*.json")]
        problems += [f"triggers were left behind: {left}"] if left else []
        print(f"{len(rows)} rows, {len(alerts)} alerts, {len(seen)} tickers with rows")
        return problems


async def attack(seed: str, kills: int) -> bool:
    """Run the attack; return whether all is as it must be."""
    tickers = [f"K{number}" for number in range(kills)]
    ratings = dict.fromkeys(tickers, ScriptedRating("BUY", "high", "It rises."))
    with tempfile.TemporaryDirectory() as name:
        async with MessagesServer(ratings) as service:
            run = Attack(seed, tickers, Path(name), service.url)
            problems = await asyncio.to_thread(run.run)
        for problem in problems:
            print(problem)
        if problems:
            print(run.output()[-20_000:])
    return not problems


def main() -> int:
    """Run the attack; return the exit code."""
    seed = os.environ.get("ATTACK_SEED") or str(random.randrange(10**6))
    kills = int(os.environ.get("KILLS") or 40)
    print(f"ATTACK_SEED={seed}, {kills} kills", flush=True)
    return 0 if asyncio.run(attack(seed, kills)) else 1


if __name__ == "__main__":
    sys.exit(main())
