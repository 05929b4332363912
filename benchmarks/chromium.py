"""A browser to measure in: chromium without a window, asked over its DevTools protocol."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect

from benchmarks.parts import until
from newshead.loop import off_loop
from newshead.settings import ConfigurationError

CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--remote-debugging-port=0",
)
WINDOW: Final = {"width": 1440, "height": 860, "deviceScaleFactor": 1, "mobile": False}
# The browser writes it as soon as it listens: its port, and the path of its protocol.
PORT_FILE: Final = "DevToolsActivePort"
DEADLINE_S: Final = 900.0


def command(url: str, profile: Path, *arguments: str) -> list[str]:
    """The command that opens a page, with further arguments of the browser.

    Raises ConfigurationError where there is no chromium.
    """
    if CHROMIUM is None:
        raise ConfigurationError("Install chromium: this benchmark measures in it.")
    return [CHROMIUM, *ARGUMENTS, f"--user-data-dir={profile}", *arguments, url]


class Tab:
    """The browser's one page."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._asked = 0
        self._session = ""

    async def attach(self) -> None:
        """Finds the page."""
        targets = (await self.ask("Target.getTargets"))["targetInfos"]
        page = next(each["targetId"] for each in targets if each["type"] == "page")
        attached = await self.ask("Target.attachToTarget", targetId=page, flatten=True)
        self._session = attached["sessionId"]
        await self.ask("Emulation.setDeviceMetricsOverride", **WINDOW)
        # A thread's own time does not depend on what else the machine does.
        await self.ask("Performance.enable", timeDomain="threadTicks")

    async def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """What the browser answers to a command of its protocol."""
        self._asked += 1
        question: dict[str, Any] = {"id": self._asked, "method": method, "params": parameters}
        if self._session:
            question["sessionId"] = self._session
        await self._connection.send(json.dumps(question))
        answer: dict[str, Any] = {}
        async with asyncio.timeout(DEADLINE_S):
            while answer.get("id") != self._asked:
                answer = json.loads(await self._connection.recv())
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    async def value(self, expression: str) -> Any:
        """What an expression, or its promise, gives on the page."""
        answer = await self.ask(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']['text']}")
        return answer["result"].get("value")

    async def metrics(self) -> dict[str, float]:
        """What the browser counts of the page; a duration is the main thread's own time."""
        found = (await self.ask("Performance.getMetrics"))["metrics"]
        return {each["name"]: each["value"] for each in found}


@asynccontextmanager
async def tab(profile: Path, *arguments: str) -> AsyncIterator[Tab]:
    """An empty page in a browser of its own."""
    browser = subprocess.Popen(  # noqa: ASYNC220, S603
        command("about:blank", profile, *arguments),
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        await off_loop(until, lambda: len(_lines(profile / PORT_FILE)) == 2, "the browser")
        port, path = _lines(profile / PORT_FILE)
        address = f"ws://127.0.0.1:{port}{path}"
        async with connect(address, max_size=None, ping_interval=None, proxy=None) as connection:
            found = Tab(connection)
            await found.attach()
            yield found
    finally:
        browser.terminate()
        browser.wait()


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []
