"""What the simulator's commands share: refusing arguments, and running until they are told."""

import argparse
import asyncio
import signal
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, NoReturn

# newshead's own, which is not imported here: a test holds both together.
__version__: Final = "1.0.0"


class Parser(argparse.ArgumentParser):
    """An argument parser for a command's own mistakes too; it has `--version`."""

    def __init__(self, **named: Any) -> None:
        super().__init__(**named)
        self.add_argument("--version", action="version", version=f"simulator {__version__}")

    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one sentence, without the usage, and exit with code 2."""
        self.exit(2, f"{self.prog}: {message}\n")


async def serve(server: AbstractAsyncContextManager[Any]) -> None:
    """Run a server until SIGINT or SIGTERM."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    async with server:
        await stopped.wait()
