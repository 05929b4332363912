"""`python -m benchmarks`: runs the benchmarks and prints their table.

Each script has a process of its own, so that none suffers from another.
"""

import importlib
import pkgutil
import platform
import sys
from argparse import ArgumentParser
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from multiprocessing import get_context
from os import cpu_count
from typing import Final

import benchmarks
from benchmarks.figures import Figure, table

NO_SCRIPTS: Final = ("__main__", "figures", "parts")


def scripts() -> list[str]:
    """The names of the scripts of this folder."""
    return [m.name for m in pkgutil.iter_modules(benchmarks.__path__) if m.name not in NO_SCRIPTS]


def measure(script: str, quick: bool) -> list[Figure]:
    """Runs one script."""
    module = importlib.import_module(f"benchmarks.{script}")
    figures: list[Figure] = module.measure(quick)
    return figures


def main() -> int:
    parser = ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="seconds each; figures mean nothing")
    parser.add_argument("script", nargs="*", choices=[[], *scripts()], help="by default all")
    options = parser.parse_args()
    figures: list[Figure] = []
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as process:
        for script in options.script or scripts():
            print(f"{script} …", file=sys.stderr)
            figures += process.submit(measure, script, options.quick).result()
    machine = f"{platform.platform()}, {cpu_count()} cores, Python {platform.python_version()}"
    print(f"{datetime.now(UTC):%Y-%m-%d}, {machine}\n\n{table(figures)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
