"""What the simulator's commands share: refusing arguments, and running until they are told."""

import argparse
import asyncio
import signal
from contextlib import AbstractAsyncContextManager
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """An argument parser for a command's own mistakes too."""

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
