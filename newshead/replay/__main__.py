"""What would have been: recordings, a day from files or the stored sessions, judged by the alert
rule, as it is and as it might be.

Exit codes: 0, 1 where a replay differs from its recording, where the database holds something else
or fails, 2 where the input or the arguments are wrong.
"""

import argparse
import csv
import gc
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Final

from newshead.core import results_text, rule
from newshead.core.results import Bar
from newshead.core.rule import Rule
from newshead.core.tickers import parse_ticker
from newshead.database import past
from newshead.database.connection import DATABASE_ERRORS, one_line
from newshead.database.results import follow_ups
from newshead.process import (
    EXIT_FAILED,
    EXIT_MISCONFIGURED,
    EXIT_OK,
    CommandLine,
    day,
    give_up_output,
)
from newshead.recording import RecordingError
from newshead.replay import files, output, variants
from newshead.replay.day import Day
from newshead.replay.files import InputError
from newshead.replay.judging import judge
from newshead.replay.played import compared, sessions_of
from newshead.replay.progress import Progress
from newshead.replay.sessions import Session
from newshead.replay.stored import stored_sessions
from newshead.settings import ConfigurationError, Settings
from newshead.text import parse_time

# What IBKR said afterwards of windows, by ticker and first row.
Bars = Mapping[tuple[str, int], Sequence[Bar]]


class DifferentError(Exception):
    """What was recorded is not what comes of it, or not what is stored."""


SECOND_0: Final = datetime(2026, 1, 2, 14, 30, tzinfo=UTC)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    command = _command_line()
    options = command.parse_args(arguments)
    rules = variants.grid(
        chain.from_iterable(options.change_pct),
        chain.from_iterable(options.window),
        options.prices,
        options.ratings,
        options.baseline_rows,
    )
    if problem := _contradiction(options, rules):
        command.error(problem)
    progress = Progress()
    try:
        with ExitStack() as until_end:
            until_end.callback(progress.end)
            bars: Bars = {}
            if options.recordings:
                sessions = _recorded(options, progress, until_end)
            elif options.csv:
                sessions = [_read_day(options, rules, progress)]
            else:
                sessions, bars = _stored(options, until_end)
            _run(sessions, rules, bars, options, progress)
    except (InputError, RecordingError, ConfigurationError) as problem:
        print(f"{command.prog}: {problem}", file=sys.stderr)
        return EXIT_MISCONFIGURED
    except DifferentError as problem:
        print(f"{command.prog}: {problem}", file=sys.stderr)
        return EXIT_FAILED
    except DATABASE_ERRORS as problem:
        print(f"{command.prog}: {one_line(problem)}", file=sys.stderr)
        return EXIT_FAILED
    except BrokenPipeError:
        give_up_output()
        return EXIT_OK
    except KeyboardInterrupt:
        return EXIT_FAILED
    return EXIT_OK


def _command_line() -> CommandLine:
    command = CommandLine(
        prog="python -m newshead.replay",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sources = command.add_argument_group("where the prices come from")
    source = sources.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--csv", type=Path, metavar="TRADES", help="a file with seconds,ticker,price,size"
    )
    source.add_argument("--history", action="store_true", help="the rows in the database")
    source.add_argument(
        "recordings", nargs="*", type=Path, default=[], metavar="FILE", help="recordings, in order"
    )
    sources.add_argument(
        "--compare",
        action="store_true",
        help="with recordings: say what is stored otherwise in the database (exit code 1)",
    )
    sources.add_argument(
        "--news",
        type=Path,
        help="with --csv: a file with seconds,ticker,recommendation,confidence; "
        "without it a ticker's first trade opens its window, rated BUY",
    )
    sources.add_argument(
        "--begin",
        type=_time,
        metavar="TIME",
        help=f"with --csv: second 0, UTC unless it has a zone ({SECOND_0:%Y-%m-%dT%H:%M:%SZ})",
    )
    sources.add_argument(
        "--since", type=day, metavar="DAY", help="with --history: from this day in New York on"
    )
    sources.add_argument("--until", type=day, metavar="DAY", help="and up to the end of this one")
    sources.add_argument("--ticker", type=_ticker, help="with --history: this one alone")
    what_if = command.add_argument_group(
        "what if", "without these the live rule; several make a grid, and each can be repeated"
    )
    add = partial(what_if.add_argument, action="append", default=[])
    add("--change-pct", type=variants.changes_pct, metavar="3,4,5", help="a variant each, in %%")
    add("--window", type=variants.windows_s, metavar="45,60", help="a variant each, in seconds")
    add("--prices", type=variants.prices, metavar="0.40:20", help="LOW:HIGH, in USD")
    add("--ratings", type=variants.ratings, metavar="BUY,HOLD", help="those that alert")
    add(
        "--baseline-rows",
        type=variants.baseline_rows,
        metavar="2,3",
        help="the rows of which the lowest price is the baseline",
    )
    shown = command.add_argument_group("what is shown")
    shown.add_argument("--out", type=Path, metavar="FILE.csv", help="the figures as a CSV file too")
    shown.add_argument(
        "--json", action="store_true", help="in place of the table: windows and alerts, as JSON"
    )
    shown.add_argument(
        "--results",
        action="store_true",
        help="in place of the table: what prices did after each variant's alerts",
    )
    shown.add_argument("--rows", action="store_true", help="with --json: the price rows too")
    return command


def _contradiction(options: argparse.Namespace, rules: Sequence[Rule]) -> str:
    """Return what is wrong with the arguments together; empty if nothing is."""
    for name in ("news", "begin"):
        if not options.csv and getattr(options, name) is not None:
            return f"--{name} goes with --csv"
    for name in ("since", "until", "ticker"):
        if not options.history and getattr(options, name) is not None:
            return f"--{name} goes with --history"
    if options.compare and not options.recordings:
        return "--compare goes with recordings"
    if options.results and options.json:
        return "--results and --json exclude each other"
    if options.rows and not options.json:
        return "--rows goes with --json"
    if options.since and options.until and options.until < options.since:
        return f"--until {options.until} is before --since {options.since}"
    longest_s = max(by.window_s for by in rules)
    if not options.csv and longest_s > rule.LIVE.window_s:
        return (
            f"--window {longest_s} is above the {rule.LIVE.window_s} s that live has prices of; "
            "only --csv may have more"
        )
    return ""


def _read_day(options: argparse.Namespace, rules: Sequence[Rule], progress: Progress) -> Session:
    news = None
    if options.news is not None:
        news = list(files.news(options.news, partial(progress, str(options.news))))
    longest_s = max(rule.LIVE.window_s, *(by.window_s for by in rules))
    day = Day(options.begin or SECOND_0, news, longest_s)
    for trade in files.trades(options.csv, partial(progress, str(options.csv))):
        day.add(trade)
    return day.session()


def _recorded(
    options: argparse.Namespace, progress: Progress, until_end: ExitStack
) -> list[Session]:
    # With the price monitor and its client: others need not load them.
    from newshead.replay.recorded import play

    played = []
    for number, path in enumerate(options.recordings):
        progress(str(path), number / len(options.recordings))
        played.append(play(path))
        print(played[-1].summary, file=sys.stderr)
        if played[-1].difference:
            raise DifferentError("the replay does something else than newshead did.")
    if options.compare:
        database = until_end.enter_context(past.opened(Settings.from_environment()))
        same, lines = compared(database, played)
        for line in lines:
            print(line, file=sys.stderr)
        if not same:
            raise DifferentError("the database holds something else than was recorded.")
    return sessions_of(played)


def _stored(options: argparse.Namespace, until_end: ExitStack) -> tuple[list[Session], Bars]:
    """Return the stored sessions, and what IBKR said afterwards of their windows."""
    database = until_end.enter_context(past.opened(Settings.from_environment()))
    if left_out := past.left_out(database):
        print(left_out, file=sys.stderr)
    days = options.since, options.until
    roll = database.settings.session_roll
    found = list(stored_sessions(database, roll, *days, options.ticker or ""))
    if not found:
        print("No rows are stored for this.", file=sys.stderr)
    if not (found and options.results):
        return found, {}
    begins = [window.first_s for session in found for window in session.windows]
    return found, follow_ups(database.rows_if_there, min(begins), max(begins) + 1)


def _run(
    sessions: Sequence[Session],
    rules: Sequence[Rule],
    bars: Bars,
    options: argparse.Namespace,
    progress: Progress,
) -> None:
    tallies = [output.Tally(by) for by in rules]
    afterwards = [output.Afterwards(by, bars) for by in rules if options.results]
    lines: list[tuple[object, ...]] = []
    for number, session in enumerate(sessions):
        progress("judging", number / len(sessions))
        live, *results = judge(session, [rule.LIVE, *rules])
        for tally, result in zip(tallies, results, strict=True):
            lines.append(tally.add(result, live))
            if options.json:
                print(output.as_json(result, rows=options.rows))
        for each, result in zip(afterwards, results, strict=False):
            each.add(result)
    if options.out is not None:
        _write(options.out, lines)
    if options.results:
        print("\n\n".join([*(each.text for each in afterwards), results_text.method()]))
    elif not options.json:
        print(output.table(tallies))
    sys.stdout.flush()


def _write(path: Path, lines: Sequence[tuple[object, ...]]) -> None:
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([output.CSV_HEADER, *lines])
    except OSError as problem:
        raise InputError(f"{path} cannot be written: {problem.strerror}.") from problem


def _time(text: str) -> datetime:
    found = parse_time(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 2026-01-02T14:30:00Z")
    return found


def _ticker(text: str) -> str:
    found = parse_ticker(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no ticker such as ABCD or BRK.B")
    return found


if __name__ == "__main__":
    # Rows by the hundred thousand make no cycles; to look for some takes longer than all the rest.
    gc.disable()
    sys.exit(main())
