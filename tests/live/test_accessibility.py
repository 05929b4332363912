"""Whether everyone can read and use the page; the view *Results* has its own tests."""

from datetime import timedelta
from typing import Final

import pytest
from browsing import DEADLINE_MS, Open, barriers, card, shows
from playwright.async_api import ViewportSize, expect
from watching import (
    ago,
    noon_of_yesterday,
    now,
    served,
    write_alerts,
    write_news,
    write_part,
    write_prices,
    write_status,
    write_ticker_status,
)

from clickhouse_manager import ClickHouseManager
from newshead.settings import Settings

RISE: Final = [2.0, 2.0, 2.01, 2.03, 2.06, 2.11, 2.16, 2.2, 2.22, 2.21, 2.14]
# All of it in sight: axe is unsure of what is scrolled away.
TALL: Final = ViewportSize(width=1440, height=1400)
PHONE: Final = ViewportSize(width=390, height=844)


@pytest.fixture
def full(session: ClickHouseManager) -> ClickHouseManager:
    """A session that has something of each kind, and one before it."""
    session.client.insert(
        "News.float_list_detailed_dedup",
        [["BEST", 4.5], ["GOOD", 2.0]],
        column_names=["ticker", "strength_score"],
    )
    yesterday = noon_of_yesterday()
    write_news(session, "OLD", "yesterday's news", detected_at=yesterday)
    write_prices(session, "OLD", RISE, began=yesterday)
    write_alerts(session, "OLD")
    session.move_session()
    for ticker in ("BEST", "GOOD", "ZOOM"):
        write_news(
            session,
            ticker,
            "FDA approves",
            article_url="https://news.example/",
            published_utc=ago(30).isoformat(),
            explanation="Its only drug.",
        )
        write_prices(session, ticker, RISE)
        write_alerts(session, ticker)
    write_news(session, "ZOOM", "More", article_url="https://news.example/2")
    write_ticker_status(session, "ZOOM", halted=2, previous_close=2.0)
    write_news(session, "FALL", "A warning", "SELL")
    write_prices(session, "FALL", [2.0, 2.0, 2.0, 1.9], recommendation="SELL")
    write_ticker_status(session, "NONE", refused="IBKR knows no such stock.")
    write_status(
        session,
        timestamp=now() + timedelta(minutes=5),
        delayed=1,
        last_error="an error",
        kept_rows=3,
    )
    return session


async def test_no_view_has_a_barrier_in_either_theme(
    visit: Open, full: ClickHouseManager, page_settings: Settings
) -> None:
    async with served(page_settings) as url:
        page = await visit(url, viewport=TALL)
        await card(page, "ZOOM").click()
        await page.locator("#chart-others summary").click()
        await page.locator("#alerts .unfold").first.click()
        await shows(page.locator("#chart-link"), "Article")
        write_part(full, "rating", "off", "no key is set.")
        write_part(full, "news wires", "degraded", "no message for 15 minutes.")
        await expect(page.locator("#banner")).to_have_class("doubt", timeout=DEADLINE_MS)
        assert await barriers(page) == []
        await page.keyboard.press("?")
        assert await barriers(page) == []
        await page.keyboard.press("Escape")

        write_part(full, "market data", "lost", "BLIND: no data for any active ticker.")
        await shows(page.locator("#banner"), "BLIND")
        await page.keyboard.press("d")
        assert await barriers(page) == []
        await page.set_viewport_size(PHONE)
        assert await barriers(page) == []

        await page.keyboard.press("2")
        await shows(card(page, "OLD"), "yesterday's news")
        assert await barriers(page) == []
        await page.set_viewport_size(TALL)
        await page.locator("#filter").fill("none")
        await shows(page.locator("#nothing"), "No ticker fits the filter.")
        assert await barriers(page) == []
