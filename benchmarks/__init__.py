"""How fast newshead is, measured beside its references. `python -m benchmarks` runs it all."""

import importlib
import pkgutil
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Final

from benchmarks.figures import Figure

# Modules here that measure nothing themselves.
NO_SCRIPTS: Final = ("__main__", "chromium", "figures", "parts")


def scripts() -> list[str]:
    """The names of the scripts of this folder."""
    return [m.name for m in pkgutil.iter_modules(__path__) if m.name not in NO_SCRIPTS]


def run(script: str, *, quick: bool) -> list[Figure]:
    """Runs one script, in a process of its own so that none suffers from another."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(_measure, script, quick).result()


def _measure(script: str, quick: bool) -> list[Figure]:
    module = importlib.import_module(f"benchmarks.{script}")
    figures: list[Figure] = module.measure(quick)
    return figures
