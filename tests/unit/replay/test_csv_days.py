"""Random days from files, beside an oracle that is written from the documents and uses nothing of
newshead's."""

import itertools
import json
import math
import os
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from newshead.core.slots import SLOT_S
from newshead.replay.__main__ import main

DAYS_A_SEED = 25
SEED = int(os.environ["ALERT_RULE_SEED"])
BEGIN_MS = int(datetime(2026, 1, 2, 14, 30, tzinfo=UTC).timestamp()) * 1000
TICKERS = ["ABCD", "EFGH", "IJ", "KLMNO", "BRK.B"]


class Trade(NamedTuple):
    ms: int
    ticker: str
    price: float
    size: float


class News(NamedTuple):
    ms: int
    ticker: str
    rating: str


class Row(NamedTuple):
    second: int
    price: float
    volume: int
    rating: str
    slot_end: int


# The oracle. Times are whole milliseconds since 1970.


def day_rows(trades: Sequence[Trade], news: Sequence[News] | None) -> dict[str, list[Row]]:
    """The rows of each ticker, without an end of its window."""
    if news is None:
        first = sorted(trades, key=lambda t: t.ms)
        openings = {t.ticker: News(t.ms, t.ticker, "BUY") for t in reversed(first)}
        news = list(openings.values())
    in_order = sorted(news, key=lambda n: n.ms)
    found = {}
    for ticker in {line.ticker for line in in_order}:
        lines = [line for line in in_order if line.ticker == ticker]
        opened = lines[0].ms
        own = sorted((t for t in trades if t.ticker == ticker), key=lambda t: t.ms)
        ticks = [t for t in own if t.ms >= opened]
        if before := [t for t in own if t.ms < opened]:
            ticks.insert(0, before[-1]._replace(ms=opened))
        rows = []
        for number, slot in itertools.groupby(ticks, key=lambda t: t.ms // 2000):
            newest = list(slot)[-1]
            end = (number + 1) * 2000
            rating = [line.rating for line in lines if line.ms <= end][-1]
            volume = max(1, int(newest.size + 0.5))
            rows.append(Row(newest.ms // 1000, newest.price, volume, rating, end // 1000))
        found[ticker] = rows
    return found


def expected(rows: dict[str, list[Row]], variant: dict[str, Any]) -> dict[str, Any]:
    """What `--json` is to say of a variant."""
    windows, alerts, kept_rows = [], [], []
    in_order = sorted(rows.items(), key=lambda kv: (kv[1][0].second if kv[1] else math.inf, kv[0]))
    for ticker, every in in_order:
        # A ticker without a row is inside: the first row is kept in any window.
        kept = every[:1]
        kept += [r for r in every[1:] if r.slot_end - every[0].second <= variant["window_s"]]
        kept_rows += [
            {
                "ticker": ticker,
                "timestamp": iso(row.second),
                "price": row.price,
                "volume": row.volume,
                "recommendation": row.rating,
            }
            for row in kept
        ]
        last_baseline = max(variant["baseline_rows"])
        changes, rose, in_range, own = [], 0, 0, []
        if len(kept) >= last_baseline:
            baseline = min(kept[n - 1].price for n in variant["baseline_rows"])
            for row in kept[last_baseline - 1 :]:
                elapsed = row.second - kept[0].second
                change = (row.price - baseline) / baseline * 100
                changes.append(change)
                if change < variant["change_pct"]:
                    continue
                rose += 1
                if not variant["lowest"] <= row.price < variant["highest"]:
                    continue
                in_range += 1
                if row.rating in variant["ratings"]:
                    own.append(
                        {
                            "ticker": ticker,
                            "timestamp": iso(row.second),
                            "price": row.price,
                            "change_pct": change,
                            "seconds_elapsed": elapsed,
                            "alert": 3,
                        }
                    )
        alerts += own
        windows.append(
            {
                "ticker": ticker,
                "first": iso(kept[0].second) if kept else None,
                "rows": len(kept),
                "alerts": len(own),
                "best_change_pct": max(changes) if changes else None,
                "outcome": words(variant, len(kept), len(own), changes, rose, in_range),
            }
        )
    alerts.sort(key=lambda alert: (alert["timestamp"], alert["ticker"]))
    return {"variant": variant, "windows": windows, "alerts": alerts, "rows": kept_rows}


def shown(change: float, threshold: float) -> str:
    if change < threshold <= round(change, 1):
        return f"{min(round(change, 2), threshold - 0.01):+.2f} %"
    return f"{round(change, 1) + 0.0:+.1f} %"


def words(
    variant: dict[str, Any], rows: int, alerts: int, changes: list[float], rose: int, in_range: int
) -> str:
    if not rows:
        return "no ticks"
    if not changes:
        return f"no alert, only {rows} prices"
    best = (
        f"best change {shown(max(changes), variant['change_pct'])} of {variant['change_pct']:g} %"
    )
    if alerts:
        return f"{alerts} alert{'s' * (alerts > 1)}, {best}"
    if not rose:
        return f"no alert, {best}"
    if not in_range:
        return (
            f"no alert, price outside {variant['lowest']:.2f} to {variant['highest']:.0f}, {best}"
        )
    return f"no alert, not rated {' or '.join(variant['ratings'])}, {best}"


def iso(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat()


# Random days


def random_day(dice: random.Random, begin_ms: int) -> tuple[list[Trade], list[News] | None]:
    """Trades and news around each other, in any order, often at the same or at even moments."""

    def moment(low: int, high: int) -> int:
        return begin_ms + dice.choice([1, 1, 500, 1000, 2000]) * dice.randint(low, high)

    trades, news = [], []
    for ticker in dice.sample(TICKERS, dice.randint(1, len(TICKERS))):
        price = dice.choice([0.38, 0.5, 1.0, 4.0, 10.4, 10.9, 19.0])
        pace_ms = dice.choice([300, 1500, 4000, 20_000])
        at = moment(0, 20)
        for _ in range(dice.randint(0, 60)):
            price = max(0.01, round(price * (1 + dice.choice([0, 0.01, -0.01, 0.03])), 4))
            trades.append(Trade(at, ticker, price, dice.choice([1, 100, 0.2, 2.5, 250])))
            at += dice.choice([0, 1, dice.randint(0, 2 * pace_ms), 2000 - at % 2000])
        if dice.random() < 0.9:
            news += [
                News(moment(0, 30), ticker, dice.choice(["BUY", "BUY", "HOLD", "SELL"]))
                for _ in range(dice.randint(1, 4))
            ]
    if dice.random() < 0.5:
        dice.shuffle(trades)
    dice.shuffle(news)
    return trades, news if dice.random() < 0.8 else None


def random_grid(dice: random.Random) -> tuple[list[str], list[dict[str, Any]]]:
    """Options, and the variants that they list."""
    changes = dice.sample([1.0, 3.0, 4.5, 5.0, 8.0], dice.randint(1, 3))
    windows = dice.sample([1, 3, 20, 45, 60, 91], dice.randint(1, 2))
    prices = dice.sample([(0.4, 11.0), (0.4, 20.0), (1.0, 5.0)], dice.randint(1, 2))
    ratings = dice.sample([["BUY"], ["BUY", "HOLD"], ["HOLD", "SELL"]], dice.randint(1, 2))
    baselines = dice.sample([[2, 3], [1], [2], [3, 5]], dice.randint(1, 2))
    options = [f"--change-pct={','.join(map(str, changes))}"]
    options += [f"--window={window}" for window in windows]
    options += [f"--prices={low}:{high}" for low, high in prices]
    options += [f"--ratings={','.join(rated)}" for rated in ratings]
    options += [f"--baseline-rows={','.join(map(str, rows))}" for rows in baselines]
    variants = [
        {
            "change_pct": change_pct,
            "window_s": window_s,
            "lowest": lowest,
            "highest": highest,
            "ratings": rated,
            "baseline_rows": rows,
        }
        for change_pct, window_s, (lowest, highest), rated, rows in itertools.product(
            changes, windows, prices, ratings, baselines
        )
    ]
    return options, variants


def write(path: Path, header: str, lines: Sequence[Sequence[object]]) -> str:
    path.write_text("\n".join([header, *(",".join(map(str, line)) for line in lines), ""]))
    return str(path)


@pytest.mark.parametrize("seed", range(SEED, SEED + 12))
def test_the_oracle_agrees_on_random_days(
    seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dice = random.Random(seed)
    alerts = 0
    for _ in range(DAYS_A_SEED):
        begin_ms = BEGIN_MS + 1000 * dice.randint(0, 3)
        trades, news = random_day(dice, begin_ms)
        options, variants = random_grid(dice)
        spelling = dice.choice(["BRK.B", "BRK B", "brk/b"])
        if news is None:
            spelling = "BRK.B"
        shown = [
            ((ms - begin_ms) / 1000, ticker.replace("BRK.B", spelling), *rest)
            for ms, ticker, *rest in trades
        ]
        options += ["--csv", write(tmp_path / "trades.csv", "seconds,ticker,price,size", shown)]
        options.append(f"--begin={datetime.fromtimestamp(begin_ms // 1000, UTC).isoformat()}")
        if news is not None:
            told = [((ms - begin_ms) / 1000, ticker, rating, "low") for ms, ticker, rating in news]
            header = "seconds,ticker,recommendation,confidence"
            options += ["--news", write(tmp_path / "news.csv", header, told)]
        assert main([*options, "--json", "--rows"]) == 0
        results = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        rows = day_rows(trades, news)
        assert len(results) == len(variants)
        for result, variant in zip(results, variants, strict=True):
            assert result.pop("session") == iso(begin_ms // 1000)
            assert result == expected(rows, variant)
            alerts += len(result["alerts"])
    assert alerts


def test_slots_are_as_long_as_lives() -> None:
    import price_checker

    assert price_checker.CYCLE_S == SLOT_S
