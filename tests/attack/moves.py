"""Forty kills amid writes and moves of the embedded engine's rows, and then the account of them.

`.venv/bin/python tests/attack/moves.py`. KILLS makes it shorter, ATTACK_SEED repeats a run's
moments. Exit code 0 only if each row whose insert was answered is in the history, once, and each
of the others there at most once, with all of its batch.
"""

import os
import random
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from clickhouse_manager import ClickHouseManager
from newshead.settings import Settings

PROJECT: Final = Path(__file__).resolve().parents[2]
# After an insert was answered, in which time others are and a move takes place.
KILLED_WITHIN_S: Final = 0.5
BATCH: Final = 6
# Writes batches from the number on that it is given, says which were answered, moves every third.
WRITE_AND_MOVE: Final = f"""
import itertools, sys
from datetime import UTC, datetime
from pathlib import Path
from clickhouse_manager import ClickHouseManager
from newshead.database import slices, store
from newshead.database.store import Batch
from newshead.database.tables import AlertRow, PriceRow
from newshead.settings import Settings

slices.SLICE_ROWS = 4
manager = ClickHouseManager(Settings(clickhouse_path=Path(sys.argv[1])))
manager.connect()
manager.create_tables()
manager.move_session()
for number in itertools.count(int(sys.argv[2])):
    at = datetime.now(UTC)
    tickers = [f"T{{number}}x{{n}}" for n in range({BATCH})]
    rating = ("ibkr_last_trade", "positive", "BUY", "high")
    prices = [PriceRow(at, ticker, 1.0, number, *rating) for ticker in tickers]
    store.insert(manager.client, Batch(prices, f"prices {{number}}"))
    store.insert(manager.client, Batch([AlertRow(t, at, 1, 1.0) for t in tickers], f"a {{number}}"))
    print(number, flush=True)
    if number % 3 == 2:
        manager.move_session()
"""


def write_and_kill(folder: Path, dice: random.Random, kills: int) -> set[int]:
    """Return the numbers of the batches whose inserts were answered."""
    answered: set[int] = set()
    begin = 0
    for number in range(1, kills + 1):
        command = [sys.executable, "-c", WRITE_AND_MOVE, str(folder), str(begin)]
        with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            timer = threading.Timer(0, process.kill)
            for line in process.stdout:
                answered.add(int(line))
                if not timer.is_alive():
                    timer = threading.Timer(dice.uniform(0, KILLED_WITHIN_S), process.kill)
                    timer.start()
        print(f"kill {number}, {len(answered)} batches answered", flush=True)
        begin = max(answered, default=begin) + 2
    return answered


def account(folder: Path, answered: set[int]) -> list[str]:
    """Return what is not as it must be."""
    problems = []
    manager = ClickHouseManager(Settings(clickhouse_path=folder))
    manager.connect()
    try:
        manager.create_tables()
        manager.move_session()
        for table in ("price_tracking", "news_alert"):
            found = manager.rows(
                "SELECT toUInt64(extract(ticker, 'T([0-9]+)x')) AS batch, count(), "
                f"uniqExact(ticker) FROM News.{table}_history GROUP BY batch"
            )
            problems += [
                f"{table}: batch {batch} has {rows} rows, of {tickers} tickers, instead of {BATCH}"
                for batch, rows, tickers in found
                if (rows, tickers) != (BATCH, BATCH)
            ]
            missing = answered - {batch for batch, *_ in found}
            problems += [f"{table}: batch {batch} is missing" for batch in sorted(missing)]
    finally:
        manager.close()
    return problems


def main() -> int:
    """Run the attack; return the exit code."""
    seed = os.environ.get("ATTACK_SEED") or str(random.randrange(10**6))
    kills = int(os.environ.get("KILLS") or 40)
    print(f"ATTACK_SEED={seed}, {kills} kills", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "clickhouse"
        answered = write_and_kill(folder, random.Random(seed), kills)
        problems = account(folder, answered)
    if len(answered) < kills:
        problems.append(f"only {len(answered)} batches were answered")
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
