"""The page in a real browser, as a trader sees it.

With SCREENSHOTS=FOLDER in the environment the README's pictures are taken anew.
"""

import asyncio
import os
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from browsing import DEADLINE_MS, Open, card, shows
from clickhouse_server import ClickHouseServer
from monitoring import running, tracked, trade_each_slot
from playwright.async_api import Browser, Error, Page, expect
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
)

import dashboard.wire
from clickhouse_manager import ClickHouseManager
from newshead.settings import Settings
from simulator import Gateway

RISE: Final = [2.0, 2.0, 2.01, 2.03, 2.06, 2.11, 2.16, 2.2, 2.22, 2.21, 2.24]


async def line_pixels(page: Page) -> int:
    """How many pixels of the chart have just the colour of the prices' line."""
    found: int = await page.evaluate(
        """() => Math.max(...[...document.querySelectorAll("#chart canvas")].map((canvas) => {
            const { width, height } = canvas;
            if (!width || !height) return 0;
            const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
            const up = getComputedStyle(document.documentElement).getPropertyValue("--up").trim();
            const [r, g, b] = up.match(/[0-9a-f]{2}/g).map((part) => parseInt(part, 16));
            let count = 0;
            for (let i = 0; i < data.length; i += 4) {
                count += data[i] === r && data[i + 1] === g && data[i + 2] === b;
            }
            return count;
        }))"""
    )
    return found


@pytest.mark.usefixtures("short_cycles")
async def test_a_session_is_watched_from_headline_to_alert(
    visit: Open, settings: Settings, database: ClickHouseManager, gateway: Gateway
) -> None:
    async with served(replace(settings, dashboard_port=0)) as url, running(settings):
        page = await visit(url)
        await shows(page.locator("#nothing"), "Waiting for the first news")
        # Newer than what the monitor itself says meanwhile.
        soon = now() + timedelta(minutes=1)
        write_status(database, timestamp=soon, cycles=1234, state_since=ago(65))
        await shows(page.locator("#mode"), "PAPER")
        await shows(page.locator("#state"), re.compile(r"ready for \d+ s"))
        await shows(page.locator("#figures"), "1,234")

        write_news(database, "ABCD", "FDA approves ABCD's only drug", detected_at=now())
        await shows(card(page, "ABCD"), "waiting for the first price")
        await tracked(gateway, settings)
        await trade_each_slot(gateway, "ABCD", [2.0, 2.01])
        await shows(card(page, "ABCD"), "waiting for the third price")
        await shows(card(page, "ABCD"), re.compile(r"\d+ s"))
        await trade_each_slot(gateway, "ABCD", [2.0, 2.062])
        await shows(card(page, "ABCD"), re.compile("3\\.1\u00a0% of 5"))
        await shows(page.locator("#no-alerts"), "None so far")
        await trade_each_slot(gateway, "ABCD", [2.2])

        await shows(card(page, "ABCD"), re.compile("alerted once"))
        await shows(card(page, "ABCD"), "+10.0 %")
        await shows(page.locator("#alerts > li"), re.compile(r"3\s*ABCD\s*2\.20\s*\+10\.0"))
        await shows(page.locator("#announcements"), "Alert 3 for ABCD: 2.20 dollars, +10.0 %.")
        # The chart is there without a click, and drawn.
        await shows(page.locator("#chart-ticker"), "ABCD")
        await shows(page.locator("#chart-reason"), "alerted once")
        chart = page.locator("#chart")
        await expect(chart).to_have_attribute(
            "aria-label",
            re.compile("Prices of ABCD: 5, last 2.20, highest 2.20 dollars, first alert 2.20 at"),
            timeout=DEADLINE_MS,
        )
        assert await line_pixels(page) > 100


async def test_the_password_gate_holds_in_the_browser(
    visit: Open, browser: Browser, session: ClickHouseManager, page_settings: Settings
) -> None:
    write_news(session, "ZOOM", "FDA approves")
    async with served(replace(page_settings, dashboard_password="a word")) as url:
        # Where a person would be asked.
        with pytest.raises(Error, match="ERR_INVALID_AUTH_CREDENTIALS"):
            await (await browser.new_page()).goto(url)
        page = await browser.new_page(http_credentials={"username": "x", "password": "another"})
        answer = await page.goto(url)
        assert answer is not None
        assert answer.status == 401
        assert "ZOOM" not in await page.content()
        page = await visit(url, http_credentials={"username": "x", "password": "a word"})
        await shows(card(page, "ZOOM"), "FDA approves")


async def test_a_dead_monitor_a_lost_database_and_a_lost_server_show_over_everything(
    visit: Open,
    session: ClickHouseManager,
    page_settings: Settings,
    server: ClickHouseServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(dashboard.wire.RULE, "stale_s", 3.0)
    write_prices(session, "ZOOM", RISE)
    async with served(page_settings) as url:
        page = await visit(url)
        banner = page.locator("#banner")
        await shows(banner, "No price monitor has reported to this database yet")
        write_status(session)
        await expect(banner).to_be_hidden(timeout=DEADLINE_MS)
        await shows(banner, "The price monitor has not reported since")
        await expect(banner).to_be_in_viewport()
        write_status(session, timestamp=now() + timedelta(minutes=1), state="stale")
        await expect(banner).to_be_hidden(timeout=DEADLINE_MS)
        await shows(page.locator("#state"), "stale for")

        lights = page.locator("#parts")
        write_part(session, "market data", "lost", "BLIND: no data for any active ticker.")
        write_part(session, "rating", "off", "no key is set.")
        await shows(banner, "market data: BLIND: no data for any active ticker.")
        await expect(lights.locator('[data-health="bad"]')).to_contain_text("market data")
        await expect(lights.locator('[data-health="off"]')).to_have_text(
            "ratingoff: no key is set."
        )
        await expect(page.locator("body")).to_have_attribute("data-mode", "PAPER")
        write_part(session, "market data", "ok")
        await expect(banner).to_be_hidden(timeout=DEADLINE_MS)
        await shows(page.locator("#recent"), "recent: market data ")
        write_part(session, "news wires", "degraded", "no message of any source for 15 minutes.")
        await shows(banner, "news wires: no message of any source for 15 minutes.")
        await expect(banner).to_have_class("doubt")
        write_part(session, "news wires", "ok")
        await expect(banner).to_be_hidden(timeout=DEADLINE_MS)

        server.fault("error", code=999, text="DB::Exception: disk is gone")
        await shows(banner, "The database cannot be read")
        server.clear_faults()
        await expect(banner).to_be_hidden(timeout=DEADLINE_MS)
    await shows(banner, "This page has lost its server")
    # What was known stays in sight.
    await shows(card(page, "ZOOM"), "2.24")


async def test_the_page_comes_back_with_a_server_that_was_started_again(
    visit: Open, session: ClickHouseManager, page_settings: Settings
) -> None:
    write_status(session, timestamp=now() + timedelta(minutes=1))
    write_news(session, "ZOOM", "FDA approves")
    async with served(page_settings) as url:
        page = await visit(url)
        await shows(card(page, "ZOOM"), "FDA approves")
    write_news(session, "CALM", "An award")
    port = int(url.rstrip("/").rsplit(":", 1)[1])
    async with served(replace(page_settings, dashboard_port=port)):
        await shows(card(page, "CALM"), "An award")
        await expect(page.locator("#cards li")).to_have_count(2)


async def test_live_paper_and_delayed_data_cannot_be_mistaken(
    visit: Open, session: ClickHouseManager, page_settings: Settings
) -> None:
    async with served(page_settings) as url:
        page = await visit(url)
        seen = {}
        for mode in ("PAPER", "LIVE", "UNKNOWN"):
            write_status(
                session, mode=mode, delayed=mode == "LIVE", last_error=f"{mode} <b>error</b>"
            )
            await shows(page.locator("#mode"), re.compile(mode, re.IGNORECASE))
            await shows(page.locator("#last-error"), f"{mode} <b>error</b>")
            seen[mode] = await page.locator("#mode").evaluate(
                "e => getComputedStyle(e).backgroundColor"
            )
            await expect(page.locator("#delayed")).to_be_visible(visible=mode == "LIVE")
        assert len(set(seen.values())) == 3


async def test_hostile_headlines_stay_text(
    visit: Open, session: ClickHouseManager, page_settings: Settings
) -> None:
    script = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    write_news(session, "EVIL", script, article_url="javascript:document.title='owned'")
    write_news(session, "LONG", "x" * 10_000)
    write_news(session, "WORD", "word " * 2_000)
    write_news(session, "BIDI", "\u202e\u2067 reversed ZOOM\u0627\u0644")
    write_news(session, "<img src=x>", "of another program", recommendation="<b>BUY</b>")
    write_prices(session, "EVIL", RISE)
    async with served(page_settings) as url:
        page = await visit(url)
        await shows(card(page, "EVIL"), script)
        await shows(card(page, "LONG"), "xxx")
        await shows(card(page, "<img src=x>"), "<b>BUY</b>")
        await card(page, "EVIL").click()
        await shows(page.locator("#chart-headline"), script)
        await expect(page.locator("#chart-link")).to_be_hidden()
        assert (
            await page.locator("#cards img, #cards script, #chart-panel img, #cards b b").count()
            == 0
        )
        assert await page.title() == "LOST · newshead"
        heights = await page.locator("#cards li").evaluate_all(
            "all => all.map(e => e.offsetHeight)"
        )
        assert max(heights) < 150
        assert await wider_than_window(page) == 0
        # A headline's direction ends with it.
        foot = card(page, "BIDI").locator(".reason")
        assert await foot.evaluate("e => getComputedStyle(e).direction") == "ltr"
        assert await card(page, "BIDI").locator("bdi").count() == 1


async def wider_than_window(page: Page) -> int:
    width: int = await page.evaluate(
        "Math.max(0, document.documentElement.scrollWidth - document.documentElement.clientWidth)"
    )
    return width


async def test_the_keyboard_reaches_everything(
    visit: Open, session: ClickHouseManager, page_settings: Settings
) -> None:
    for number, ticker in enumerate(("OLD", "MID", "NEW")):
        write_news(session, ticker, f"{ticker} headline", detected_at=ago(30 - number))
        write_prices(session, ticker, RISE)
    write_alerts(session, "OLD")
    async with served(page_settings) as url:
        page = await visit(url)
        chosen = page.locator("#chart-ticker")
        await shows(chosen, "NEW")
        await page.keyboard.press("t")
        await page.keyboard.press("ArrowDown")
        await shows(chosen, "MID")
        await page.keyboard.press("j")
        await shows(chosen, "OLD")
        await page.keyboard.press("Home")
        await shows(chosen, "NEW")
        assert await page.locator("#cards li[tabindex='0']").count() == 1
        await page.keyboard.press("a")
        await page.keyboard.press("Enter")
        await shows(chosen, "OLD")
        await page.keyboard.press("/")
        await page.keyboard.type("mid")
        await expect(page.locator("#cards li:visible")).to_have_count(1)
        await shows(page.locator("#count"), "1 of 3")
        await page.keyboard.type("x")
        await shows(page.locator("#nothing"), "No ticker fits the filter")
        await page.keyboard.press("Escape")
        await expect(page.locator("#cards li:visible")).to_have_count(3)
        await page.keyboard.press("?")
        await expect(page.locator("#help")).to_be_visible()
        await page.keyboard.press("Escape")
        await expect(page.locator("#help")).to_be_hidden()
        await page.keyboard.press("2")
        await shows(page.locator("#nothing"), "No earlier sessions")
        await page.keyboard.press("1")
        await expect(page.locator("#cards li")).to_have_count(3)


async def test_a_screen_reader_finds_landmarks_names_and_quiet_regions(
    visit: Open, session: ClickHouseManager, page_settings: Settings
) -> None:
    write_status(session)
    write_news(session, "ZOOM", "FDA approves")
    write_prices(session, "ZOOM", RISE)
    async with served(page_settings) as url:
        page = await visit(url)
        for role, name in (
            ("region", "Tickers"),
            ("region", "Chart"),
            ("region", "Alerts"),
            ("listbox", "Tickers"),
            ("button", "Sound"),
            ("searchbox", "Filter by ticker or headline"),
            ("img", re.compile("Prices of ZOOM: 11")),
        ):
            named: Any = page.get_by_role(role, name=name, exact=isinstance(name, str))  # type: ignore[arg-type]
            await expect(named).to_be_visible(timeout=DEADLINE_MS)
        option = page.get_by_role("option", name=re.compile("ZOOM BUY high 2.24"))
        await expect(option).to_have_attribute("aria-selected", "true")
        # What was alerted before the page was opened is not read out.
        write_alerts(session, "ZOOM")
        await shows(page.locator("#announcements"), "Alert 3 for ZOOM")
        await page.reload()
        await shows(page.locator("#alert-count"), re.compile(r"\d"))
        assert await page.locator("#announcements").text_content() == ""


async def test_one_changed_ticker_of_five_hundred_changes_one_card(
    visit: Open, session: ClickHouseManager, page_settings: Settings
) -> None:
    names = [f"T{number}" for number in range(500)]
    began = ago(20)
    for name in names:
        write_prices(session, name, RISE, began=began)
    async with served(page_settings) as url:
        page = await visit(url)
        await expect(page.locator("#cards li")).to_have_count(500, timeout=DEADLINE_MS)
        await page.evaluate(
            """() => {
                window.changed = new Set();
                new MutationObserver((all) => all.forEach((one) => {
                    const node = one.target.nodeType === 1 ? one.target : one.target.parentElement;
                    const item = node.closest("#cards li");
                    const steps = node.closest(".left, .window");
                    if (item && !steps) window.changed.add(item.dataset.key);
                })).observe(document.getElementById("cards"),
                    { subtree: true, childList: true, characterData: true, attributes: true });
            }"""
        )
        write_prices(session, "T7", [2.5])
        await shows(card(page, "T7"), "2.50")
        assert await page.evaluate("[...window.changed]") == ["T7"]


@pytest.mark.parametrize(("motion", "steps"), [("no-preference", 61), ("reduce", 6)])
async def test_an_open_window_counts_down_in_seconds_and_in_steps_of_its_bar(
    visit: Open, session: ClickHouseManager, page_settings: Settings, motion: str, steps: int
) -> None:
    write_prices(session, "ZOOM", [2.0])
    async with served(page_settings) as url:
        page = await visit(url, reduced_motion=motion)
        await shows(card(page, "ZOOM").locator(".left"), re.compile(r"\d+ s"))
        seen = await page.evaluate(
            """async () => {
                const bar = document.querySelector("#cards .window i");
                const seen = [];
                for (let i = 0; i < 120; i += 1) {
                    const left = document.querySelector("#cards .left").textContent;
                    const shown = bar.getBoundingClientRect().width / bar.offsetWidth;
                    if (seen.at(-1)?.[0] !== left) seen.push([left, shown]);
                    await new Promise((go) => setTimeout(go, 100));
                }
                return seen;
            }"""
        )
        # It runs for as long as there are windows, so nothing may be drawn between the steps.
        assert await page.evaluate("document.getAnimations().length") == 0
    seconds = [int(left.removesuffix(" s")) for left, _ in seen]
    bars = [shown for _, shown in seen]
    assert seconds == sorted(seconds, reverse=True)
    assert bars == sorted(bars, reverse=True)
    assert len(set(seconds)) > 2
    assert bars[0] > bars[-1]
    for second, bar in zip(seconds, bars, strict=True):
        assert bar * steps == pytest.approx(round(bar * steps), abs=0.01)
        # The text leaves out the part of a second, the bar that of a step.
        assert -0.001 <= bar - second / 61 <= 1 / steps + 1 / 61 + 0.001


async def test_an_update_that_comes_late_sets_the_clock_back_no_more_than_it_must(
    visit: Open, page_settings: Settings
) -> None:
    async with served(page_settings) as url:
        page = await visit(url)
        told = await page.evaluate(
            """async () => {
                const { now, setNow } = await import("/static/format.js");
                const after = (time) => { setNow(time); return now(); };
                return [1e9, 1e9 - 0.5, 1e9 + 0.5, 1e9 - 40].map(after);
            }"""
        )
    # A clock that was set is another matter.
    assert told == pytest.approx([1e9, 1e9, 1e9 + 0.5, 1e9 - 40], abs=0.3)


async def test_earlier_sessions_are_shown_and_any_list_is_had_as_csv(
    visit: Open, session: ClickHouseManager, page_settings: Settings, tmp_path: Path
) -> None:
    yesterday = noon_of_yesterday()
    write_news(session, "ZOOM", "yesterday's news", detected_at=yesterday)
    write_prices(session, "ZOOM", RISE, began=yesterday)
    write_alerts(session, "ZOOM")
    session.move_session()
    write_news(session, "CALM", "today's news")
    async with served(page_settings) as url:
        page = await visit(url)
        await shows(card(page, "CALM"), "today's news")
        await page.get_by_role("button", name="Earlier").click()
        await shows(card(page, "ZOOM"), re.compile("window over: 6 alerts"))
        await expect(card(page, "CALM")).to_have_count(0)
        await shows(page.locator("#chart-ticker"), "ZOOM")
        for link, lines in (("#cards-csv", 2), ("#alerts-csv", 7), ("#chart-csv", 12)):
            async with page.expect_download() as download:
                await page.locator(link).click()
            path = tmp_path / "saved.csv"
            await (await download.value).save_as(path)
            assert len(path.read_text().splitlines()) == lines
        await page.locator("#ticker").fill("none")
        await page.keyboard.press("Enter")
        await shows(page.locator("#nothing"), "No window of that session or ticker")
        await page.locator("#ticker").fill("zoom")
        await page.keyboard.press("Enter")
        await shows(card(page, "ZOOM"), "yesterday's news")
        await page.get_by_role("button", name="Session").click()
        await shows(card(page, "CALM"), "today's news")
        await expect(card(page, "ZOOM")).to_have_count(0)


async def test_sound_and_notifications_are_off_until_switched_on(
    visit: Open, session: ClickHouseManager, page_settings: Settings
) -> None:
    write_news(session, "ZOOM", "FDA approves")
    async with served(page_settings) as url:
        page = await visit(url)
        await shows(card(page, "ZOOM"), "waiting for the first price")
        await page.evaluate(
            """() => {
                window.tones = 0;
                const start = OscillatorNode.prototype.start;
                OscillatorNode.prototype.start = function (...at) {
                    window.tones += 1;
                    start.apply(this, at);
                };
                window.notified = [];
                window.Notification = class {
                    constructor(text) { window.notified.push(text); }
                    static async requestPermission() { return "granted"; }
                };
            }"""
        )
        write_prices(session, "ZOOM", RISE)
        write_alerts(session, "ZOOM")
        await shows(page.locator("#announcements"), "ZOOM")
        assert await page.evaluate("[window.tones, window.notified.length]") == [0, 0]

        await page.keyboard.press("s")
        await page.keyboard.press("n")
        await expect(page.locator("#sound")).to_have_attribute("aria-pressed", "true")
        await expect(page.locator("#notify")).to_have_attribute("aria-pressed", "true")
        before = await page.evaluate("window.tones")
        write_prices(session, "CALM", RISE)
        write_alerts(session, "CALM")
        await shows(page.locator("#announcements"), "CALM")
        assert await page.evaluate("window.tones") > before
        assert await page.evaluate("window.notified.map((text) => text.slice(0, 16))") == [
            "Alert 3 for CALM"
        ]


@pytest.mark.parametrize("scheme", ["dark", "light"])
async def test_a_phone_shows_everything_without_sideways_scrolling(
    visit: Open, session: ClickHouseManager, page_settings: Settings, scheme: str
) -> None:
    write_status(session, last_error="a long error " * 20)
    write_news(session, "ZOOM", "FDA approves")
    write_prices(session, "ZOOM", RISE)
    write_alerts(session, "ZOOM")
    async with served(page_settings) as url:
        page = await visit(url, viewport={"width": 360, "height": 740}, color_scheme=scheme)
        await shows(card(page, "ZOOM"), "alerted")
        assert await wider_than_window(page) == 0
        background = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        brightness = sum(int(part) for part in re.findall(r"\d+", background)[:3])
        assert (brightness > 600) == (scheme == "light")
        for part in ("#chart", "#alerts li", "#cards li", "#mode"):
            await expect(page.locator(part).first).to_be_visible()


# --- The README's pictures ----------------------------------------------------


@pytest.mark.skipif("SCREENSHOTS" not in os.environ, reason="taken only when SCREENSHOTS is set")
async def test_screenshots(
    visit: Open, session: ClickHouseManager, page_settings: Settings
) -> None:
    folder = Path(os.environ["SCREENSHOTS"])
    wave = [1.0, 0.998, 1.002, 1.006, 1.004, 1.011, 1.018, 1.03, 1.045, 1.058, 1.071, 1.069, 1.084]
    wave += [1.092, 1.088, 1.101, 1.112, 1.108, 1.116, 1.121]
    write_status(session, active_tickers=6, cycles=412, ticks=3204, rows=1377, state_since=ago(824))
    session.client.insert(
        "News.float_list_detailed_dedup",
        [["KRVA", 4.5], ["GRDX", 2.0]],
        column_names=["ticker", "strength_score"],
    )
    for age, ticker, headline, rating, price, prices in (
        (
            110,
            "NOVQ",
            "Novaqua names a new chief financial officer",
            "HOLD",
            1.74,
            wave[:9],
        ),
        (
            96,
            "GRDX",
            "Gridex wins a 200 million dollar contract of the Department of Defense",
            "BUY",
            5.12,
            wave[:14],
        ),
        (
            52,
            "QBTA",
            "Qubita beats the estimates of the third quarter, raises its guidance",
            "BUY",
            14.2,
            wave,
        ),
        (46, "HLBK", "Hollbrook Bank explores the sale of two branches", "HOLD", 2.61, wave),
        (40, "KRVA", "FDA approves Karuva's only drug, the first of its kind", "BUY", 2.08, wave),
        (
            7,
            "SNDO",
            "Sundo signs a supply agreement with a national grocery chain",
            "BUY",
            0.8412,
            wave[:2],
        ),
    ):
        write_news(
            session,
            ticker,
            headline,
            rating,
            detected_at=ago(age + 3),
            article_url="https://example.com/",
        )
        write_prices(
            session,
            ticker,
            [round(price * factor, 4) for factor in prices],
            began=ago(age),
            recommendation=rating,
        )
    write_alerts(session, "GRDX", "KRVA")
    async with served(page_settings) as url:
        for name, options in (
            ("session-dark", {"color_scheme": "dark"}),
            ("session-light", {"color_scheme": "light"}),
            ("session-phone", {"color_scheme": "dark", "viewport": {"width": 390, "height": 844}}),
        ):
            write_status(
                session, active_tickers=6, cycles=412, ticks=3204, rows=1377, state_since=ago(824)
            )
            page = await visit(url, **options)
            await card(page, "KRVA").click()
            await page.evaluate("scrollTo(0, 0)")
            await shows(page.locator("#chart-ticker"), "KRVA")
            await asyncio.sleep(1)
            await page.screenshot(path=folder / f"{name}.png")
