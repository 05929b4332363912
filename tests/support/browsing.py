"""The page in a real browser: how tests open it and find their way on it."""

import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import pytest
from axe_playwright_python.async_playwright import Axe
from deadlines import DEADLINE_S
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
DEADLINE_MS: Final = 1000 * DEADLINE_S

# What a border's contrast and a target's size ought to be, which axe leaves to others.
MEASURE: Final = """() => {
    const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const luminance = (rgb) => {
        const [r, g, b] = rgb.slice(0, 3).map((part) => {
            const c = part / 255;
            return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const contrast = (a, b) => {
        const [high, low] = [luminance(a), luminance(b)].sort((x, y) => y - x);
        return (high + 0.05) / (low + 0.05);
    };
    const behind = (node) => {
        for (let at = node; at; at = at.parentElement) {
            const colour = channels(getComputedStyle(at).backgroundColor);
            if (colour.length === 3 || colour[3] === 1) return colour;
        }
        return [255, 255, 255];
    };
    const bad = [];
    for (const node of document.querySelectorAll("body *")) {
        if (!node.checkVisibility() || node.closest("svg, canvas, .unseen")) continue;
        const style = getComputedStyle(node);
        const box = node.getBoundingClientRect();
        const named = `${node.tagName} ${node.id} ${node.className} ${node.textContent}`;
        if (node.matches("button, input, select, .rating, .priority")
            && parseFloat(style.borderTopWidth)
            && contrast(channels(style.borderTopColor), behind(node.parentElement)) < 3) {
            bad.push(`border: ${named}`);
        }
        if (node.matches("a, button, input, select, summary, [role=option]")
            && box.width && (box.width < 24 || box.height < 24)) bad.push(`target: ${named}`);
    }
    return bad;
}"""
# Also of single characters and signs, of which axe is not sure that they are text.
ALL_TEXT: Final = {
    "resultTypes": ["violations", "incomplete"],
    "checks": {"color-contrast": {"options": {"ignoreLength": True, "ignoreUnicode": False}}},
}
MODAL: Final = "dialog:modal"
# Axe takes what lies below an open dialog for something above it.
HIDE_BELOW: Final = """(hide) => {
    for (const node of document.querySelectorAll("body > :not(dialog)")) {
        node.style.visibility = hide ? "hidden" : "";
    }
}"""

# Axe takes what moves between two of its looks for overlapped: the chart follows the page's layout
# a few frames later.
SETTLE: Final = """async () => {
    for (let frame = 0; frame < 5; frame += 1) await new Promise(requestAnimationFrame);
}"""

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


async def barriers(page: Page, *, unsure: bool = True) -> list[str]:
    """What keeps someone from reading or using the page as it is now, or the dialog that is open,
    in both themes; `unsure`: also where axe cannot tell, as with text that is scrolled away."""
    dialog = [MODAL] if await page.locator(MODAL).count() else []
    await page.evaluate(HIDE_BELOW, bool(dialog))
    # The background of a plot's text is not told.
    looked_at = {"include": dialog or ["html"], "exclude": ["svg text"]}
    found = []
    for scheme in ("dark", "light"):
        await page.emulate_media(color_scheme=scheme)
        await page.evaluate(SETTLE)
        response = (await Axe().run(page, looked_at, ALL_TEXT)).response
        found += [
            f"{scheme}: {broken['id']}: {node['target']} {node['failureSummary']}"
            for kind in (("violations", "incomplete") if unsure else ("violations",))
            for broken in response[kind]
            for node in broken["nodes"]
        ]
        found += [f"{scheme}: {bad}" for bad in await page.evaluate(MEASURE)]
    return found
