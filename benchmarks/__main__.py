"""`python -m benchmarks`: runs the benchmarks and prints their table."""

import os
import platform
import sys
from datetime import UTC, datetime

from benchmarks import run, scripts
from benchmarks.figures import Figure, table
from newshead.process import CommandLine


def main() -> int:
    parser = CommandLine(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="seconds each; figures mean nothing")
    parser.add_argument("script", nargs="*", choices=[[], *scripts()], help="by default all")
    options = parser.parse_args()
    figures: list[Figure] = []
    for script in options.script or scripts():
        print(f"{script} …", file=sys.stderr)
        figures += run(script, quick=options.quick)
    machine = f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"{datetime.now(UTC):%Y-%m-%d}, {machine}\n\n{table(figures)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
