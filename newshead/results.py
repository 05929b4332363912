"""Was an alert any good? What prices did after the alerts that are stored in the database, and
after the highest points of windows without one.

Exit codes: 0, 1 where the database fails, 2 where the arguments or the settings are wrong.
"""

import argparse
import csv
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from newshead.core import results, results_text
from newshead.core.results import Case
from newshead.database import past
from newshead.database.connection import DATABASE_ERRORS, Database, one_line
from newshead.database.results import windows
from newshead.process import (
    EXIT_FAILED,
    EXIT_MISCONFIGURED,
    EXIT_OK,
    CommandLine,
    day,
    give_up_output,
)
from newshead.settings import ConfigurationError, Settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    command = _command_line()
    options = command.parse_args(arguments)
    if options.since and options.until and options.until < options.since:
        command.error(f"--until {options.until} is before --since {options.since}")
    try:
        with past.opened(Settings.from_environment()) as database:
            if left_out := past.left_out(database):
                print(left_out, file=sys.stderr)
            cases, unusable = _judged(database, options)
        if options.csv is not None:
            _write(options.csv, cases)
        print(results_text.text(cases, unusable))
        if cases:
            print(f"\n{results_text.method()}")
        sys.stdout.flush()
    except ConfigurationError as problem:
        print(f"{command.prog}: {problem}", file=sys.stderr)
        return EXIT_MISCONFIGURED
    except DATABASE_ERRORS as problem:
        print(f"{command.prog}: {one_line(problem)}", file=sys.stderr)
        return EXIT_FAILED
    except BrokenPipeError:
        give_up_output()
    except KeyboardInterrupt:
        return EXIT_FAILED
    return EXIT_OK


def _command_line() -> CommandLine:
    command = CommandLine(
        prog="python -m newshead.results",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--since", type=day, metavar="DAY", help="from this day in New York on")
    command.add_argument("--until", type=day, metavar="DAY", help="and up to the end of this one")
    command.add_argument(
        "--csv",
        type=Path,
        metavar="FOLDER",
        help="write groups.csv, paths.csv and windows.csv there too",
    )
    return command


def _judged(database: Database, options: argparse.Namespace) -> tuple[list[Case], int]:
    """Return the windows that can be judged, and the number of the others."""
    now_s = datetime.now(UTC).timestamp()
    return results.cases(windows(database.rows_if_there, options.since, options.until, now_s))


def _write(folder: Path, cases: Sequence[Case]) -> None:
    path = folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, rows_of in results_text.FILES.items():
            rows = rows_of(cases)
            path = folder / f"{name}.csv"
            with path.open("w", encoding="utf-8", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows(rows)
    except OSError as problem:
        raise ConfigurationError(f"{path} cannot be written: {problem.strerror}.") from problem


if __name__ == "__main__":
    sys.exit(main())
