"""The view *Results* in a real browser."""

import re
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from browsing import Open, barriers, shows
from month import BAD, FEW, GOOD, NO_ALERT, write_month
from playwright.async_api import Page, expect
from watching import noon_of_yesterday, served

from clickhouse_manager import ClickHouseManager
from newshead.settings import Settings

PHONE = {"width": 390, "height": 844}


@pytest.fixture
def month(session: ClickHouseManager) -> None:
    write_month(session, GOOD, BAD, FEW, NO_ALERT)


@pytest.mark.usefixtures("month")
async def test_a_month_is_shown_in_tables_plots_and_lists(
    page_settings: Settings, visit: Open, tmp_path: Path
) -> None:
    async with served(page_settings) as url:
        page = await visit(url)
        # From then on nothing moves any more.
        await shows(page.locator("#banner"), "No price monitor has reported")
        await page.click("#show-results")
        await shows(page.locator("#said"), "156 windows, 106 of them alerted, 156 followed up.")
        found = re.search(
            r"high60\+\S+ % \(\+(\S+) % to \+(\S+) %\)100 %", await text_of(page, "high")
        )
        assert found, await text_of(page, "high")
        assert float(found[1]) < GOOD.change_pct < float(found[2])
        assert await text_of(page, "medium") == "medium6too few to say"
        await shows(page.locator("#method"), "No fees and no slippage")

        assert await barriers(page) == []

        assert await page.locator("#path polygon").count() == 1
        median = str(await page.locator("#path .median").get_attribute("points"))
        heights = [float(pair.split(",")[1]) for pair in median.split()]
        # Up, where the screen's heights are low: nothing for two minutes, and then the change.
        assert heights[0] == heights[6] > heights[-1]
        await expect(page.locator("#path")).to_have_attribute("aria-label", re.compile("median"))
        assert await page.locator("#scatter circle").count() == 106
        assert await page.locator("#scatter circle.down").count() > 30

        best, worst = page.locator("#best li"), page.locator("#worst li")
        assert (await best.count(), await worst.count()) == (10, 10)
        # The six leaps; then the good ones.
        await shows(best.first, re.compile(r"7\.42\+(2|3)\d\.\d %"))
        await shows(worst.first, re.compile(r"0\.5300\u2212\d"))
        ticker = str(await best.first.locator("a").text_content())

        await page.click("#best li:first-child a")
        await shows(page.locator("#chart-ticker"), ticker)
        await page.go_back()
        await shows(page.locator("#said"), "156 windows")

        async with page.expect_download() as saving:
            await page.click("#groups-csv")
        saved = tmp_path / "groups.csv"
        await (await saving.value).save_as(saved)
        assert saved.read_text().startswith("windows,grouping,value,measure,n,enough,median_pct")

        week = noon_of_yesterday().date() - timedelta(days=6)
        await page.fill("#since", str(week))
        await shows(page.locator("#said"), re.compile(r"^4\d windows"))
        await page.fill("#since", "2020-01-01")
        await shows(page.locator("#said"), "until must be since or one of the 100 days")
        await page.fill("#until", "2020-01-02")
        await shows(page.locator("#said"), "No window of these days is stored.")
        await expect(page.locator("#found")).to_be_hidden()


@pytest.mark.usefixtures("month")
async def test_on_a_phone_nothing_is_wider_than_the_screen(
    page_settings: Settings, visit: Open
) -> None:
    async with served(page_settings) as url:
        page = await visit(url, viewport=PHONE)
        await page.goto(f"{url}results")
        await shows(page.locator("#said"), "156 windows")
        assert await barriers(page, unsure=False) == []
        width = await page.evaluate("document.documentElement.scrollWidth")
        assert width <= PHONE["width"]
        first, second = [
            await page.locator(f"#{name}").bounding_box() for name in ("path", "scatter")
        ]
        assert first
        assert second
        assert first["width"] > 300
        assert first["y"] + first["height"] < second["y"]


async def test_without_a_follow_up_the_view_says_how_to_get_one(
    session: ClickHouseManager, page_settings: Settings, visit: Open
) -> None:
    write_month(session, GOOD._replace(windows=3))
    session.client.command("TRUNCATE TABLE News.follow_up")
    async with served(page_settings) as url:
        page = await visit(url)
        await page.goto(f"{url}results")
        await shows(page.locator("#path-note"), "with FOLLOW_UP=true newshead asks IBKR for it")
        await shows(page.locator("#scatter-title"), "at the window's end")
        await expect(page.locator("#path")).to_be_hidden()


@pytest.mark.parametrize(
    ("path", "code", "told"),
    [
        ("figures?since=x", 400, "since and until must be days such as 2026-11-24."),
        ("figures?since=0001-01-01&until=9999-12-31", 400, "since and until must be days"),
        ("figures?since=2026-02-01&until=2026-01-01", 400, "until must be since"),
        ("windows.csv?since=2025-01-01&until=2026-01-01", 400, "one of the 100 days from it on"),
        ("rows.csv", 404, "There are groups.csv, paths.csv, windows.csv."),
    ],
)
async def test_what_cannot_be_shown_is_refused_in_one_sentence(
    page_settings: Settings, path: str, code: int, told: str
) -> None:
    async with served(page_settings) as url, httpx.AsyncClient() as client:
        answer = await client.get(f"{url}results/{path}")
    assert answer.status_code == code
    assert told in answer.text


async def text_of(page: Page, name: str) -> str:
    """The first row of the tables with a name."""
    rows = page.locator("#groups tr").filter(has=page.locator(f"th:text-is('{name}')"))
    return str(await rows.first.text_content())
