"""What no unit test may do: open a socket, make an event loop, load the engine, or sleep."""

import asyncio
import socket
import sys
import time
from collections.abc import Callable
from typing import NoReturn

import pytest


def refused(what: str) -> Callable[..., NoReturn]:
    def refuse(*_: object, **__: object) -> NoReturn:
        # Not an Exception: no handler of the code under test swallows it.
        pytest.fail(f"A unit test {what}; it belongs in tests/live.")

    return refuse


@pytest.fixture(autouse=True)
def neither_io_nor_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a test at the first thing that a pure core needs none of."""
    monkeypatch.setattr(socket.socket, "__init__", refused("opens a socket"))
    for module in (asyncio, asyncio.events):
        monkeypatch.setattr(module, "new_event_loop", refused("makes an event loop"))
    monkeypatch.setattr(time, "sleep", refused("sleeps"))
    # Live tests of the same run may have loaded it.
    for name in [name for name in sys.modules if name.partition(".")[0] == "chdb"]:
        monkeypatch.delitem(sys.modules, name)
    finder = EngineRefused()
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])


class EngineRefused:
    """An import finder that knows of the engine, and refuses it."""

    def find_spec(self, name: str, *_: object) -> None:
        if name == "chdb":
            refused("loads the engine")()
