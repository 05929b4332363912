"""What a trader reads on the page and does with it, in a real browser: many of it on each page."""

import csv
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from browsing import DEADLINE_MS, Open, card, shows
from clickhouse_server import ClickHouseServer
from playwright.async_api import Page, expect
from watching import (
    ago,
    noon_of_yesterday,
    now,
    served,
    write_alerts,
    write_company,
    write_news,
    write_prices,
    write_status,
    write_ticker_status,
)

from clickhouse_manager import ClickHouseManager
from newshead.core.times import NEW_YORK
from newshead.settings import Settings

RISE: Final = [2.0, 2.0, 2.01, 2.03, 2.06, 2.11, 2.16, 2.2, 2.22, 2.21, 2.14]


async def saved(page: Page, link: str, folder: Path) -> list[dict[str, str]]:
    """The lines of a list that is saved from the page."""
    async with page.expect_download() as download:
        await page.locator(link).click()
    path = folder / "saved.csv"
    await (await download.value).save_as(path)
    with path.open(newline="") as lines:
        return list(csv.DictReader(lines))


def in_new_york(at: datetime) -> str:
    return f"{at.astimezone(NEW_YORK):%H:%M:%S}"


async def test_a_ticker_tells_what_a_news_trader_reads_first(
    visit: Open, session: ClickHouseManager, page_settings: Settings, tmp_path: Path
) -> None:
    published, detected = ago(25), ago(23.8)
    write_status(session, timestamp=now() + timedelta(minutes=2))
    write_news(
        session,
        "ZOOM",
        "FDA approves",
        source="Benzinga",
        published_utc=published.isoformat(),
        detected_at=detected,
        analyzed_at=detected,
        explanation="Its only drug.",
        article_url="https://news.example/zoom",
    )
    write_prices(session, "ZOOM", RISE, began=ago(22))
    write_alerts(session, "ZOOM")
    later = ago(1)
    write_news(
        session,
        "ZOOM",
        "Halted for news",
        "HOLD",
        detected_at=later,
        analyzed_at=later,
        explanation="It says nothing yet.",
    )
    write_ticker_status(session, "ZOOM", halted=1, previous_close=1.07, day_volume=1_234_567)
    write_company(session, "ZOOM", country="Israel", float_shares=12_300_000)
    # Tracked, and nothing else is known of them.
    write_ticker_status(session, "MUTE")
    write_ticker_status(session, "NONE", refused="IBKR knows no such stock.")
    async with served(page_settings) as url:
        page = await visit(url)
        await card(page, "ZOOM").click()
        for part, text in (
            ("#chart-headline", "FDA approves"),
            ("#chart-news", f"{in_new_york(published)} · "),
            ("#chart-news", re.compile(r"\d+ s ago · here \+1\.2 s · Benzinga")),
            ("#chart-facts", "Israel · float 12.3M · close 1.07 · gap +100.0 % · day 1.23M"),
            ("#chart-facts", "2 articles"),
            ("#chart-explanation", "It says nothing yet."),
            ("#chart-condition", "halted (news pending)"),
            ("#chart-best", "best +11.0 %"),
            ("#chart-change", "+7.0 %"),
            ("#chart-others summary", "1 other article"),
            ("#chart-legend", "newest trade 110 shares"),
        ):
            await shows(page.locator(part), text)
        await shows(card(page, "ZOOM"), re.compile(r"Benzinga · \+1\.2 s · 2 articles"))
        await shows(card(page, "ZOOM"), re.compile("alerted 6 times.*best .11.0 % · 11 rows"))
        await page.locator("#chart-others summary").click()
        await shows(page.locator("#chart-others li"), "Halted for news")
        # The newest rating is the later article's; the alert came from the first one's.
        await shows(page.locator("#chart-rating"), "HOLD")
        await shows(card(page, "MUTE"), re.compile("waiting for the first price|no news and no"))
        await shows(card(page, "NONE"), "IBKR knows no such stock.")
        await shows(page.locator("#count"), "3 tickers")

        # Its alerts are one group, which unfolds.
        group = page.locator("#alerts > li")
        await expect(group).to_have_count(1)
        await shows(group, re.compile(r"3\s*ZOOM\s*2\.11\s*\+5\.5"))
        for text in ("\u00d76", "best +11.0 %", "now 2.14 +7.0 %", "FDA approves"):
            await shows(group, text)
        await expect(group.locator(".rows")).to_be_hidden()
        await group.locator(".unfold").click()
        await expect(group.locator(".rows")).to_be_visible()
        await expect(group.locator(".rows li")).to_have_count(6)
        await expect(group.locator(".unfold")).to_have_attribute("aria-expanded", "true")
        await expect(page.locator("#chart")).to_have_attribute(
            "aria-label", re.compile(r"first alert 2\.11 at")
        )
        # Round seconds, none cut off, and the seconds since the news below.
        times = await page.locator("#time-axis .clock").all_inner_texts()
        assert len(times) > 3
        assert {int(text[-2:]) % 5 for text in times} == {0}
        assert re.fullmatch(
            "[+\u2212]\\d+ s", await page.locator("#time-axis .since").first.inner_text()
        )
        assert await page.evaluate(
            """() => [...document.querySelectorAll("#time-axis span")].every((label) => {
                const box = label.getBoundingClientRect();
                const axis = document.getElementById("time-axis").getBoundingClientRect();
                return box.left >= axis.left && box.right <= axis.right;
            })"""
        )

        # Links.
        await expect(page.locator("#chart-link")).to_have_attribute(
            "href", "https://news.example/zoom"
        )
        elsewhere = page.locator("#chart-outside")
        await expect(elsewhere).to_have_attribute("href", re.compile(r"tradingview.*symbol=ZOOM"))
        await page.keyboard.press("?")
        await page.locator("#link-template").fill("https://charts.example/{ticker}/1m")
        await page.locator("#link-template").press("Tab")
        await page.keyboard.press("Escape")
        await expect(elsewhere).to_have_attribute("href", "https://charts.example/ZOOM/1m")
        await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        await page.locator("#copy").click()
        assert await page.evaluate("navigator.clipboard.readText()") == "ZOOM"

        # A list is saved as it is shown, its times in New York.
        await page.locator("#filter").fill("fda")
        [line] = await saved(page, "#cards-csv", tmp_path)
        assert line["ticker"] == "ZOOM"
        assert line["explanation"] == "It says nothing yet."
        detected_at = datetime.fromisoformat(line["detected_at"])
        assert detected_at.utcoffset() == detected.astimezone(NEW_YORK).utcoffset()
        alerts = await saved(page, "#alerts-csv", tmp_path)
        assert {alert["headline"] for alert in alerts} == {"FDA approves"}

        # Times are New York's, here on demand.
        await shows(page.locator("#zone"), "New York")
        await page.locator("#zone").click()
        await shows(page.locator("#zone"), "UTC")
        await shows(page.locator("#chart-news"), f"{published:%H:%M:%S}")
        assert await page.title() == "1 alert · PAPER · newshead"


async def test_cards_are_sorted_filtered_and_followed_as_the_viewer_chose_also_after_a_reload(
    visit: Open, session: ClickHouseManager, page_settings: Settings
) -> None:
    write_status(session, timestamp=now() + timedelta(minutes=2))
    for number in range(40):
        write_news(session, f"T{number}", "news", "HOLD", detected_at=ago(200 - number))
    write_news(session, "OLD", "up", detected_at=ago(400))
    write_prices(session, "OLD", RISE, began=ago(390))
    write_alerts(session, "OLD")
    write_news(session, "NOW", "open", "HOLD", detected_at=ago(8))
    write_prices(session, "NOW", [2.0, 2.0, 2.0, 2.02], recommendation="HOLD")

    def shown(page: Page) -> Any:
        return page.locator("#cards li:visible b.ticker")

    async with served(page_settings) as url:
        page = await visit(url, viewport={"width": 1920, "height": 1080})
        await expect(shown(page).first).to_have_text("NOW", timeout=DEADLINE_MS)
        await page.locator("#order").select_option("change")
        await expect(shown(page).first).to_have_text("OLD")
        await page.locator("#order").select_option("left")
        await expect(shown(page).first).to_have_text("NOW")
        await page.locator("#order").select_option("alerted")
        await expect(shown(page).first).to_have_text("OLD")
        for chip, tickers in (("buy", ["OLD"]), ("alerted", ["OLD"]), ("open", ["NOW"])):
            await page.locator(f"#chip-{chip}").click()
            await expect(shown(page)).to_have_text(tickers)
            await page.locator(f"#chip-{chip}").click()
        await page.locator("#order").select_option("newest")

        # A dense table has 25 lines in sight.
        await page.keyboard.press("d")
        in_sight = await page.evaluate(
            """() => {
                const list = document.getElementById("cards").getBoundingClientRect();
                return [...document.querySelectorAll("#cards li")].filter((item) => {
                    const box = item.getBoundingClientRect();
                    return box.top >= list.top && box.bottom <= list.bottom;
                }).length;
            }"""
        )
        assert in_sight >= 25

        # What comes above what one reads is counted, and moves nothing.
        await page.locator("#cards").evaluate("list => list.scrollTo(0, 300)")
        write_news(session, "NEW1", "news", "HOLD")
        write_news(session, "NEW2", "news", "HOLD")
        await shows(page.locator("#above"), "2 new above")
        await page.locator("#above").click()
        await expect(page.locator("#above")).to_be_hidden()
        assert await page.locator("#cards").evaluate("list => list.scrollTop") == 0

        # The chart follows the newest alert, unless one does not want it.
        await page.evaluate(
            """() => {
                window.tones = [];
                const start = OscillatorNode.prototype.start;
                OscillatorNode.prototype.start = function (...at) {
                    window.tones.push(Math.round(this.frequency.value));
                    start.apply(this, at);
                };
            }"""
        )
        await page.locator("#sound").click()
        session.client.insert(
            "News.float_list_detailed_dedup",
            [["BEST", 4.5], ["GOOD", 2.0]],
            column_names=["ticker", "strength_score"],
        )
        heard = {}
        for ticker in ("BEST", "GOOD", "MORE"):
            await page.evaluate("window.tones.length = 0")
            write_prices(session, ticker, RISE)
            write_alerts(session, ticker)
            await shows(page.locator("#chart-ticker"), ticker)
            heard[ticker] = await page.evaluate("window.tones")
        assert len({len(tones) for tones in heard.values()}) == 3
        await page.locator("#follow").click()
        write_prices(session, "LAST", RISE)
        write_alerts(session, "LAST")
        await shows(page.locator("#announcements"), "Alert 3 for LAST")
        await shows(page.locator("#chart-ticker"), "MORE")
        assert await page.title() == "5 alerts · PAPER · newshead"
        icon = await page.locator("#icon").get_attribute("href")
        assert icon == "/icon.svg?state=well&alerts=5"

        await page.locator("#chip-buy").click()
        await page.locator("#order").select_option("change")
        await page.keyboard.press("?")
        await page.locator("#theme").select_option("light")
        await page.reload()
        await expect(page.locator("html")).to_have_attribute("data-theme", "light")
        await expect(page.locator("body")).to_have_class(re.compile("dense"))
        await expect(page.locator("#order")).to_have_value("change")
        for switch, on in (("sound", "true"), ("follow", "false"), ("chip-buy", "true")):
            await expect(page.locator(f"#{switch}")).to_have_attribute("aria-pressed", on)
        await expect(shown(page)).to_have_count(1, timeout=DEADLINE_MS)

        # A loss sounds and shows in the tab.
        await page.locator("#chip-buy").click()
        await page.evaluate(
            """() => {
                window.tones = [];
                const start = OscillatorNode.prototype.start;
                OscillatorNode.prototype.start = function (...at) {
                    window.tones.push(Math.round(this.frequency.value));
                    start.apply(this, at);
                };
            }"""
        )
    await expect(page).to_have_title(re.compile("^LOST · 5 alerts"), timeout=DEADLINE_MS)
    tones = await page.evaluate("window.tones")
    assert tones == sorted(tones, reverse=True)
    assert tones


async def test_a_link_shows_a_window_of_the_session_that_it_names(
    visit: Open, session: ClickHouseManager, page_settings: Settings
) -> None:
    noon = noon_of_yesterday()
    for minutes, headline in ((0, "morning"), (1, "next session")):
        began = noon + timedelta(minutes=minutes)
        write_news(session, "BRK.B", headline, detected_at=began, analyzed_at=began)
        write_prices(session, "BRK B", RISE, began=began)
        write_news(session, "CALM", "other", detected_at=began + timedelta(seconds=1))
        write_prices(session, "CALM", [2.0], began=began + timedelta(seconds=1))
        session.move_session()
    write_news(session, "CALM", "today")
    async with served(page_settings) as url:
        page = await visit(f"{url}#{noon:%Y%m%dT%H%M%SZ}/BRK%20B")
        await shows(page.locator("#chart-ticker"), "BRK B")
        await shows(page.locator("#chart-headline"), "morning")
        link = await page.locator("#chart-self").get_attribute("href")
        assert link == f"#{noon:%Y%m%dT%H%M%SZ}/BRK%20B"
        # From there to the session that goes on, by its own link.
        await page.get_by_role("button", name="Session").click()
        await shows(page.locator("#chart-headline"), "today")
        link = await page.locator("#chart-self").get_attribute("href")
        assert link is not None
        await page.locator("#show-earlier").click()
        await shows(page.locator("#chart-headline"), "other")
        await page.evaluate(f"location.hash = {link!r}")
        await shows(page.locator("#chart-headline"), "today")


async def test_a_page_opened_without_a_database_says_so(
    visit: Open, session: ClickHouseManager, page_settings: Settings, server: ClickHouseServer
) -> None:
    write_status(session, state_since=ago(7))
    write_news(session, "ZOOM", "FDA approves")
    server.stop()
    async with served(page_settings) as url:
        page = await visit(url)
        await shows(page.locator("#banner"), "The database cannot be read")
        await shows(page.locator("#nothing"), "The database cannot be read yet.")
        assert not re.search(r"\d{4,} h", await page.locator("body").inner_text())
        server.start()
        await shows(card(page, "ZOOM"), "FDA approves")


async def test_on_a_phone_a_tap_shows_the_chart_and_another_the_alerts(
    visit: Open, session: ClickHouseManager, page_settings: Settings
) -> None:
    write_status(session, last_error="a long error " * 20)
    for number in range(12):
        write_news(session, f"T{number}", "news", "HOLD", detected_at=ago(100 + number))
    write_prices(session, "ZOOM", RISE, began=ago(900))
    write_alerts(session, "ZOOM")
    async with served(page_settings) as url:
        page = await visit(url, viewport={"width": 360, "height": 740}, has_touch=True)
        await shows(card(page, "ZOOM"), "window over: 6 alerts")
        header = await page.locator("header").bounding_box()
        assert header is not None
        assert header["height"] < 90
        await card(page, "ZOOM").tap()
        await expect(page.locator("#chart-head")).to_be_in_viewport()
        await expect(page.locator("#chart")).to_be_in_viewport()
        await shows(page.locator("#chart-ticker"), "ZOOM")
        await page.get_by_role("link", name="Alerts 1").tap()
        await expect(page.locator("#alerts > li")).to_be_in_viewport()
        await page.locator("#alerts > li .ticker").tap()
        await expect(page.locator("#chart-head")).to_be_in_viewport()
