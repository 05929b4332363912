"""A unit test that needs more than the code under test fails."""

import asyncio
import importlib
import socket
import time
from collections.abc import Callable

import pytest


@pytest.mark.parametrize(
    ("act", "what"),
    [
        (socket.socket, "opens a socket"),
        (lambda: socket.create_connection(("127.0.0.1", 1)), "opens a socket"),
        (lambda: asyncio.new_event_loop(), "makes an event loop"),
        (lambda: asyncio.Runner().get_loop(), "makes an event loop"),
        (lambda: importlib.import_module("chdb"), "loads the engine"),
        (lambda: time.sleep(0), "sleeps"),
    ],
)
def test_a_unit_test_fails_at(act: Callable[[], object], what: str) -> None:
    with pytest.raises(pytest.fail.Exception, match=what):
        act()
