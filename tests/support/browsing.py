"""The page in a real browser: how tests open it and find their way on it."""

import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

CHROMIUM: Final = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
ARGUMENTS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
)
DEADLINE_MS: Final = 20_000

Open = Callable[..., Awaitable[Page]]


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no chromium is installed here")
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield started
        await started.close()


@pytest.fixture
async def visit(browser: Browser) -> AsyncIterator[Open]:
    """Opens the page; whatever it says to its console or asks of others fails the test."""
    complaints: list[str] = []

    async def open_page(url: str, **options: Any) -> Page:
        own = url.partition("#")[0]
        context = await browser.new_context(
            **{"viewport": {"width": 1440, "height": 860}, **options}
        )
        context.set_default_timeout(DEADLINE_MS)
        page = await context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console", lambda said: complaints.append(said.text) if _is_new(said.text) else None
        )
        page.on(
            "request",
            lambda asked: (
                None if asked.url.startswith((own, "blob:")) else complaints.append(asked.url)
            ),
        )
        await page.goto(url)
        return page

    def _is_new(text: str) -> bool:
        # The browser's own word of a server that is away, which some tests make it.
        return "Failed to load resource" not in text

    yield open_page
    assert complaints == []


def card(page: Page, ticker: str) -> Any:
    return page.locator("#cards li").filter(has=page.locator(f"b.ticker:text-is('{ticker}')"))


async def shows(locator: Any, text: str | re.Pattern[str]) -> None:
    await expect(locator).to_contain_text(text, timeout=DEADLINE_MS)
