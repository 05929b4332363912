"""Trigger files: written whole, taken once in order, and no bad file in the way of a good one."""

import asyncio
import errno
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from pathlib import Path

import pytest
from deadlines import DEADLINE_S
from monitoring import until

from newshead.loop import in_background
from newshead.monitor import triggers
from newshead.monitor.triggers import TriggerFolder

NOBODY = 65534


@pytest.fixture
def folder(tmp_path: Path) -> TriggerFolder:
    return TriggerFolder(tmp_path / "triggers")


@pytest.fixture
def no_settling(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unreadable file is given up as soon as it is seen a second time, unchanged."""
    monkeypatch.setattr(triggers, "SETTLE_S", 0.0)


def put(folder: TriggerFolder, name: str, content: str | bytes = "", *, age_s: float = 0.0) -> Path:
    """Puts a file into the folder as another program would."""
    folder.folder.mkdir(exist_ok=True)
    path = folder.folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    if age_s:
        set_age(path, age_s)
    return path


def put_trigger(folder: TriggerFolder, ticker: str, *, age_s: float = 0.0) -> Path:
    return put(folder, f"immediate_{ticker}_1.json", json.dumps({"ticker": ticker}), age_s=age_s)


def set_age(path: Path, age_s: float) -> None:
    modified = time.time() - age_s
    os.utime(path, (modified, modified), follow_symlinks=False)


def names(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir()}


def waiting(folder: TriggerFolder) -> set[str]:
    return names(folder.folder) - {"rejected", "tracked"}


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Level and text of the folder's log lines."""
    return [
        (r.levelname, r.getMessage())
        for r in caplog.records
        if r.name == "newshead.monitor.triggers"
    ]


def take(folder: TriggerFolder) -> list[str]:
    """What `take()` gives; fails if it blocks."""
    taken: list[str] = []

    def take_all() -> None:
        for trigger in folder.take():
            taken.append(trigger.ticker)
            folder.taken_in(trigger)

    thread = threading.Thread(target=take_all, daemon=True)
    thread.start()
    thread.join(DEADLINE_S)
    assert not thread.is_alive(), "take() blocks"
    return taken


# News that a trigger brings


def put_news(folder: TriggerFolder, **fields: object) -> Path:
    content = {"ticker": "ABCD", "headline": "Up"} | fields
    return put(folder, "immediate_ABCD_1.json", json.dumps(content))


def test_a_trigger_that_brings_news_is_linked_for_the_news_side_before_it_is_given(
    folder: TriggerFolder,
) -> None:
    put_news(folder)
    for trigger in folder.take():
        assert trigger.ticker == "ABCD"
        assert names(folder.news) == {"immediate_ABCD_1.json"}
    assert json.loads((folder.news / "immediate_ABCD_1.json").read_text())["headline"] == "Up"
    put_trigger(folder, "EFGH")
    assert take(folder) == ["EFGH"]
    assert len(names(folder.news)) == 1


def test_triggers_of_one_second_each_bring_their_news_and_one_taken_again_brings_it_once(
    folder: TriggerFolder,
) -> None:
    path = put_news(folder)
    # A monitor died between the link and all that follows.
    folder.news.mkdir()
    (folder.news / path.name).hardlink_to(path)
    assert take(folder) == ["ABCD"]
    put_news(folder, headline="More")
    assert take(folder) == ["ABCD"]
    headlines = [json.loads(path.read_text())["headline"] for path in folder.news.iterdir()]
    assert sorted(headlines) == ["More", "Up"]


def test_a_bad_optional_field_is_one_warning_and_costs_no_trigger(
    folder: TriggerFolder, caplog: pytest.LogCaptureFixture
) -> None:
    put_news(folder, url=7, published="yesterday")
    assert take(folder) == ["ABCD"]
    [(level, line)] = lines(caplog)
    assert level == "WARNING"
    assert "counts as if it had no url or published" in line
    assert len(names(folder.news)) == 1


def test_news_that_cannot_be_linked_is_one_warning_and_costs_no_trigger(
    folder: TriggerFolder, caplog: pytest.LogCaptureFixture
) -> None:
    put_news(folder)
    folder.news.write_text("no folder")
    assert take(folder) == ["ABCD"]
    [(level, line)] = lines(caplog)
    assert (level, "cannot be linked" in line) == ("WARNING", True)


# Writing


def test_a_trigger_is_written_as_documented(folder: TriggerFolder) -> None:
    before = datetime.now(UTC)
    path = folder.write("aapl")
    after = datetime.now(UTC)
    content = json.loads(path.read_text())
    created = datetime.fromisoformat(content.pop("created_at"))
    assert before <= created <= after
    assert created.utcoffset() == timedelta(0)
    assert path == folder.folder / f"immediate_AAPL_{int(created.timestamp())}.json"
    assert content == {
        "ticker": "AAPL",
        "timestamp": created.isoformat(),
        "trigger_type": "immediate_price_check",
    }
    assert names(folder.folder) == {path.name}, "something else was left in the folder"


def test_a_trigger_bears_the_time_of_its_news(folder: TriggerFolder) -> None:
    news = datetime(2026, 3, 1, 9, 30, 0, 250000, tzinfo=timezone(timedelta(hours=-5)))
    content = json.loads(folder.write("AAPL", news).read_text())
    assert datetime.fromisoformat(content["timestamp"]) == news
    assert datetime.fromisoformat(content["created_at"]) > news


def test_a_slash_in_a_ticker_stays_out_of_the_file_name(folder: TriggerFolder) -> None:
    path = folder.write("BRK/B")
    assert path.parent == folder.folder
    assert path.name.startswith("immediate_BRK.B_")
    assert json.loads(path.read_text())["ticker"] == "BRK/B"
    assert take(folder) == ["BRK/B"]


@pytest.mark.parametrize("ticker", ["", "../../etc/x", "A'; DROP TABLE x", "TOOLONGX"])
def test_what_is_no_ticker_is_not_written(folder: TriggerFolder, ticker: str) -> None:
    with pytest.raises(ValueError, match="is no ticker"):
        folder.write(ticker)
    assert not folder.folder.exists()


def test_no_reader_ever_sees_half_a_trigger(folder: TriggerFolder) -> None:
    folder.folder.mkdir()
    tickers = [f"T{n}" for n in range(1500)]
    seen: list[str] = []
    broken: list[str] = []
    written = threading.Event()

    def read() -> None:
        last = False
        while not last:
            last = written.is_set()
            for path in folder.folder.glob("immediate_*.json"):
                text = path.read_text()
                try:
                    seen.append(json.loads(text)["ticker"])
                except ValueError:
                    broken.append(text)
                else:
                    path.unlink()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    for ticker in tickers:
        folder.write(ticker)
    written.set()
    reader.join(DEADLINE_S)
    assert not reader.is_alive()
    assert broken == []
    assert sorted(seen) == sorted(tickers)


# Taking


def test_what_was_written_is_taken_once(folder: TriggerFolder) -> None:
    tickers = ["A", "AAPL", "BRK B", "BRK.B", "BRK/B", "BRK-B", "ABCDEF"]
    tickers += ["BACpL", "BAC.PR.L", "ABC+", "ABC^", "ABC="]
    paths = [folder.write(ticker) for ticker in tickers]
    for age_s, path in zip(range(len(paths), 0, -1), paths, strict=True):
        if path.exists():
            set_age(path, age_s)
    # BRK.B and BRK/B share a name within one second: they are one security.
    expected = [t for t in tickers if t != "BRK.B" or paths[3] != paths[4]]
    assert take(folder) == expected
    assert take(folder) == []
    assert waiting(folder) == set()


def test_triggers_of_other_programs_are_taken_by_their_content(folder: TriggerFolder) -> None:
    put(folder, "immediate_X_1.json", json.dumps({"ticker": " brk.b ", "more": [1, {}]}))
    assert take(folder) == ["BRK.B"]


def test_the_oldest_is_taken_first_then_by_name(folder: TriggerFolder) -> None:
    same = time.time_ns() - 5 * 10**9
    for name, ticker, modified in [
        ("immediate_A_1.json", "NEWEST", same + 1000),
        ("immediate_D_1.json", "THIRD", same),
        ("immediate_B_1.json", "FIRST", same),
        ("immediate_C_1.json", "SECOND", same),
        ("immediate_Z_1.json", "OLDEST", same - 1000),
    ]:
        path = put(folder, name, json.dumps({"ticker": ticker}))
        os.utime(path, ns=(modified, modified))
    assert take(folder) == ["OLDEST", "FIRST", "SECOND", "THIRD", "NEWEST"]


def test_a_trigger_is_kept_in_tracked_before_it_is_given_and_until_it_is_done_with(
    folder: TriggerFolder,
) -> None:
    for age_s, ticker in ((3, "AAA"), (2, "BRK/B"), (1, "CCC")):
        put(folder, f"immediate_{age_s}.json", json.dumps({"ticker": ticker}), age_s=age_s)
    trigger = next(folder.take())
    assert trigger.ticker == "AAA"
    assert waiting(folder) == {"immediate_2.json", "immediate_1.json"}
    # A cycle that ends before the caller has tracked the ticker.
    folder.keep_only(set())
    assert names(folder.tracked) == {"immediate_AAA.json"}
    folder.taken_in(trigger)
    assert take(folder) == ["BRK/B", "CCC"]
    folder.keep_only({"AAA", "BRK.B"})
    assert names(folder.tracked) == {"immediate_AAA.json", "immediate_BRK B.json"}
    folder.keep_only(set())
    assert names(folder.tracked) == set()


def test_what_an_earlier_monitor_kept_is_taken_up_oldest_first_within_the_age_limit(
    folder: TriggerFolder, caplog: pytest.LogCaptureFixture
) -> None:
    for ticker, age_s in (("YOUNG", 1), ("OLDER", 299), ("OLD", 301)):
        put_trigger(folder, ticker, age_s=age_s)
    take(folder)
    (folder.tracked / "immediate_BAD.json").write_text("[]")
    later = TriggerFolder(folder.folder)
    later.reject_old()
    assert list(later.take_up()) == ["OLDER", "YOUNG"]
    assert [take(later), waiting(later)] == [[], set()]
    assert names(folder.rejected) == {"immediate_OLD.json", "immediate_BAD.json"}
    assert [level for level, _ in lines(caplog)] == ["WARNING", "WARNING"]
    later.keep_only({"YOUNG"})
    assert names(folder.tracked) == {"immediate_YOUNG.json"}


@pytest.mark.usefixtures("no_settling")
def test_files_of_other_names_are_left_alone(
    folder: TriggerFolder, caplog: pytest.LogCaptureFixture
) -> None:
    others = {"AAPL.json", ".immediate_AAPL_1.json.77", "immediate_AAPL_1.json.tmp", "notes"}
    for name in others:
        put(folder, name, '{"ticker": "AAPL"}', age_s=9999)
    folder.reject_old()
    assert [take(folder), take(folder)] == [[], []]
    assert waiting(folder) == others
    assert lines(caplog) == []


def test_a_missing_folder_is_created(folder: TriggerFolder) -> None:
    assert take(folder) == []
    assert folder.folder.is_dir()


# Bad files


def outside(folder: TriggerFolder) -> Path:
    return folder.folder.parent / "outside.json"


def link(path: Path, folder: TriggerFolder) -> None:
    outside(folder).write_text('{"ticker": "LINKED"}')
    path.symlink_to(outside(folder))


BAD: dict[str, Callable[[Path, TriggerFolder], object]] = {
    "empty": lambda path, _: path.write_bytes(b""),
    "half": lambda path, _: path.write_text('{"ticker": "AAP'),
    "text": lambda path, _: path.write_text("AAPL"),
    "nothing but zeros": lambda path, _: path.write_bytes(b"\0" * 100),
    "not UTF-8": lambda path, _: path.write_bytes(b'{"ticker": "AAPL", "x": "\xe4"}'),
    "two objects": lambda path, _: path.write_text('{"ticker": "AAPL"}{"ticker": "MSFT"}'),
    "deeply nested": lambda path, _: path.write_text("[" * 60_000),
    "deeply nested object": lambda path, _: path.write_text('{"ticker":' * 6_000),
    "a number of 5000 digits": lambda path, _: path.write_text('{"n": ' + "9" * 5000 + "}"),
    "null": lambda path, _: path.write_text("null"),
    "a number": lambda path, _: path.write_text("17"),
    "a string": lambda path, _: path.write_text('"AAPL"'),
    "a list": lambda path, _: path.write_text('["ticker", "AAPL"]'),
    "without ticker": lambda path, _: path.write_text('{"symbol": "AAPL"}'),
    "ticker is null": lambda path, _: path.write_text('{"ticker": null}'),
    "ticker is an object": lambda path, _: path.write_text('{"ticker": {"ticker": "AAPL"}}'),
    "ticker is SQL": lambda path, _: path.write_text('{"ticker": "x\'; DROP TABLE y"}'),
    "ticker is half a surrogate": lambda path, _: path.write_text('{"ticker": "\\ud800"}'),
    "too large": lambda path, _: path.write_text('{"ticker": "AAPL"}' + " " * 65_519),
    "a folder": lambda path, _: path.mkdir(),
    "a folder with a folder": lambda path, _: (path / "x").mkdir(parents=True),
    "a link": link,
    "a link to nothing": lambda path, folder: path.symlink_to(outside(folder)),
    "a FIFO": lambda path, _: os.mkfifo(path),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.usefixtures("no_settling")
def test_a_bad_file_is_moved_aside_with_one_line_and_stops_no_other(
    folder: TriggerFolder, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    put_trigger(folder, "BEFORE", age_s=9)
    bad = folder.folder / "immediate_BAD_1.json"
    BAD[kind](bad, folder)
    set_age(bad, 5)
    put_trigger(folder, "AFTER", age_s=1)
    assert take(folder) == ["BEFORE", "AFTER"]
    assert [take(folder), take(folder)] == [[], []]
    assert waiting(folder) == set()
    assert names(folder.rejected) == {bad.name}
    [(level, text)] = lines(caplog)
    assert level == "WARNING"
    assert bad.name in text
    assert str(folder.rejected) in text
    assert "\n" not in text
    if kind == "a link":
        assert outside(folder).read_text() == '{"ticker": "LINKED"}'


@pytest.mark.usefixtures("no_settling")
def test_a_name_that_is_not_utf_8_is_moved_aside_like_any_other(
    folder: TriggerFolder, caplog: pytest.LogCaptureFixture
) -> None:
    folder.folder.mkdir()
    try:
        (folder.folder / "immediate_\udce4\n_1.json").write_text("[]")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert take(folder) == []
    assert names(folder.rejected) == {"immediate_\udce4\n_1.json"}
    [(_, text)] = lines(caplog)
    assert text.isascii()
    assert "\n" not in text


def test_a_file_of_64_kilobytes_is_still_a_trigger(folder: TriggerFolder) -> None:
    content = '{"ticker": "AAPL"}'
    put(folder, "immediate_AAPL_1.json", content + " " * (64 * 1024 - len(content)))
    assert take(folder) == ["AAPL"]


@pytest.mark.parametrize("half", ["", '{"ticker": "SL', '{"ticker": "SLOW"'])
def test_a_file_that_is_still_being_written_is_taken_once_it_is_whole(
    folder: TriggerFolder, caplog: pytest.LogCaptureFixture, half: str
) -> None:
    slow = put(folder, "immediate_SLOW_1.json", half)
    put_trigger(folder, "OTHER")
    assert take(folder) == ["OTHER"]
    assert take(folder) == []
    slow.write_text('{"ticker": "SLOW"}')
    assert take(folder) == ["SLOW"]
    assert lines(caplog) == []
    assert waiting(folder) == set()


def test_a_file_that_stays_unreadable_is_given_two_seconds(
    folder: TriggerFolder, caplog: pytest.LogCaptureFixture
) -> None:
    half = put(folder, "immediate_HALF_1.json", '{"ticker"')
    begin = time.monotonic()
    while half.exists():
        assert time.monotonic() - begin < 30
        assert take(folder) == []
        time.sleep(0.02)
    assert time.monotonic() - begin >= 2.0
    assert (folder.rejected / half.name).read_text() == '{"ticker"'
    assert [level for level, _ in lines(caplog)] == ["WARNING"]


@pytest.mark.usefixtures("no_settling")
def test_each_change_of_an_unreadable_file_starts_its_time_anew(folder: TriggerFolder) -> None:
    half = put(folder, "immediate_HALF_1.json", "{")
    for text in ('"ticker"', ":", '"HA'):
        take(folder)
        assert half.exists()
        with half.open("a") as growing:
            growing.write(text)
    take(folder)
    assert half.exists()
    take(folder)
    assert not half.exists()


def test_rejected_files_of_the_same_name_are_all_kept(
    folder: TriggerFolder, caplog: pytest.LogCaptureFixture
) -> None:
    for content in ("[1]", "[2]", "[3]"):
        put(folder, "immediate_X_1.json", content)
        assert take(folder) == []
    assert sorted(p.read_text() for p in folder.rejected.iterdir()) == ["[1]", "[2]", "[3]"]
    assert len(lines(caplog)) == 3


def test_rejected_links_of_the_same_name_are_all_kept(folder: TriggerFolder) -> None:
    folder.folder.mkdir()
    for target in ("gone-1", "gone-2"):
        (folder.folder / "immediate_X_1.json").symlink_to(target)
        assert take(folder) == []
    assert sorted(str(p.readlink()) for p in folder.rejected.iterdir()) == ["gone-1", "gone-2"]


def test_what_lay_there_over_five_minutes_at_the_start_is_moved_aside(
    folder: TriggerFolder, caplog: pytest.LogCaptureFixture
) -> None:
    put_trigger(folder, "OLDER", age_s=301)
    put_trigger(folder, "YOUNG", age_s=240)
    put_trigger(folder, "NEW")
    folder.reject_old()
    assert names(folder.rejected) == {"immediate_OLDER_1.json"}
    [(level, text)] = lines(caplog)
    assert level == "WARNING"
    assert "immediate_OLDER_1.json" in text
    assert "5 minutes old" in text
    assert take(folder) == ["YOUNG", "NEW"]


def test_after_the_start_the_age_of_a_trigger_does_not_matter(folder: TriggerFolder) -> None:
    put_trigger(folder, "OLDER", age_s=3000)
    assert take(folder) == ["OLDER"]


# The folder itself


def test_a_folder_replaced_by_a_file_is_reported_once_and_recovers(
    folder: TriggerFolder, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        folder.folder.write_text("in the way")
        caplog.clear()
        for _ in range(3):
            assert take(folder) == []
        [(level, text)] = lines(caplog)
        assert level == "ERROR"
        assert str(folder.folder) in text
        folder.folder.unlink()
        put_trigger(folder, "AAPL")
        assert take(folder) == ["AAPL"]
        shutil.rmtree(folder.folder)
    assert len(lines(caplog)) == 1


@contextmanager
def as_ordinary_user() -> Iterator[None]:
    """Root may read and remove everything."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[TriggerFolder]:
    """A folder that an ordinary user can reach; pytest's own are for its user only."""
    with tempfile.TemporaryDirectory() as parent:
        Path(parent).chmod(0o755)
        yield TriggerFolder(Path(parent) / "triggers")
        (Path(parent) / "triggers").chmod(0o777)


def test_a_trigger_that_cannot_be_moved_is_taken_only_once_and_lies_there_for_the_next_start(
    open_folder: TriggerFolder, caplog: pytest.LogCaptureFixture
) -> None:
    put_trigger(open_folder, "STUCK", age_s=5)
    put_trigger(open_folder, "OTHER")
    open_folder.folder.chmod(0o555)
    with as_ordinary_user():
        assert take(open_folder) == ["STUCK", "OTHER"]
        assert [take(open_folder), take(open_folder)] == [[], []]
    assert [level for level, _ in lines(caplog)] == ["ERROR", "ERROR"]
    assert "immediate_STUCK_1.json" in lines(caplog)[0][1]
    assert waiting(open_folder) == {"immediate_STUCK_1.json", "immediate_OTHER_1.json"}


def test_a_bad_file_that_cannot_be_moved_is_reported_only_once(
    open_folder: TriggerFolder, caplog: pytest.LogCaptureFixture
) -> None:
    bad = put(open_folder, "immediate_BAD_1.json", "[]")
    open_folder.folder.chmod(0o555)
    with as_ordinary_user():
        assert [take(open_folder), take(open_folder)] == [[], []]
    assert bad.exists()
    [(level, text)] = lines(caplog)
    assert level == "ERROR"
    assert bad.name in text


@pytest.mark.usefixtures("no_settling")
def test_a_trigger_that_may_not_be_read_is_moved_aside(
    open_folder: TriggerFolder, caplog: pytest.LogCaptureFixture
) -> None:
    put_trigger(open_folder, "SECRET", age_s=5).chmod(0o000)
    put_trigger(open_folder, "OTHER")
    open_folder.folder.chmod(0o777)
    with as_ordinary_user():
        assert take(open_folder) == ["OTHER"]
        assert take(open_folder) == []
    assert names(open_folder.rejected) == {"immediate_SECRET_1.json"}
    [(level, text)] = lines(caplog)
    assert level == "WARNING"
    assert "cannot be read" in text


# As they come

needs_events = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has inotify")


@asynccontextmanager
async def arriving(folder: TriggerFolder) -> AsyncIterator[list[str]]:
    """The tickers that arrive while the block runs; it begins when the folder is watched."""
    arrived: list[str] = []

    async def collect() -> None:
        async with aclosing(folder.arrivals()) as triggers_:
            async for trigger in triggers_:
                arrived.append(trigger.ticker)

    put_trigger(folder, "FIRST")
    async with in_background(collect()):
        await until(lambda: arrived, "the first trigger")
        arrived.clear()
        yield arrived


@pytest.fixture
def events_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks into the folder unless an event says so."""
    monkeypatch.setattr(triggers, "SCAN_S", 3600.0)


def polled(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [text for level, text in lines(caplog) if "every 10 ms" in text and level == "INFO"]


@needs_events
@pytest.mark.usefixtures("events_only")
async def test_each_trigger_arrives_with_its_event(folder: TriggerFolder) -> None:
    async with arriving(folder) as arrived:
        for count, ticker in enumerate(("AAA", "BBB", "CCC"), 1):
            folder.write(ticker)
            await until(partial(lambda count: len(arrived) == count, count), ticker)
        put_trigger(folder, "PLAIN")
        await until(lambda: len(arrived) == 4, "a trigger that was written in place")
        assert arrived == ["AAA", "BBB", "CCC", "PLAIN"]
        await until(lambda: not waiting(folder), "the removal of the last one")


@needs_events
@pytest.mark.usefixtures("events_only")
async def test_a_trigger_that_is_written_slowly_arrives_once_it_is_whole(
    folder: TriggerFolder,
) -> None:
    async with arriving(folder) as arrived:
        with (folder.folder / "immediate_SLOW_1.json").open("w") as slow:
            for part in ('{"tick', 'er": "SL', 'OW"'):
                slow.write(part)
                slow.flush()
                await asyncio.sleep(0.05)
            assert arrived == []
            slow.write("}")
            slow.flush()
            await until(lambda: arrived == ["SLOW"], "the trigger, its writer still there")


@needs_events
@pytest.mark.usefixtures("events_only")
async def test_a_trigger_that_may_not_be_read_at_first_arrives_once_it_may(
    open_folder: TriggerFolder,
) -> None:
    async with arriving(open_folder) as arrived:
        open_folder.folder.chmod(0o777)
        # Readable by its owner and by root only, which the reader is not.
        secret = put(open_folder, ".secret", '{"ticker": "SECRET"}')
        secret.chmod(0o000)
        with as_ordinary_user():
            secret.rename(open_folder.folder / "immediate_SECRET_1.json")
            await asyncio.sleep(0.1)
            assert arrived == []
        (open_folder.folder / "immediate_SECRET_1.json").chmod(0o666)
        with as_ordinary_user():
            await until(lambda: arrived == ["SECRET"], "the trigger")


async def test_without_a_further_event_a_bad_file_is_moved_aside_all_the_same(
    folder: TriggerFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triggers, "SETTLE_S", 0.05)
    async with arriving(folder):
        bad = put(folder, "immediate_BAD_1.json", "{")
        await until(lambda: not bad.exists(), "its end")
    assert names(folder.rejected) == {bad.name}


@needs_events
@pytest.mark.usefixtures("events_only")
async def test_a_folder_that_is_removed_and_made_again_is_watched_again(
    folder: TriggerFolder, caplog: pytest.LogCaptureFixture
) -> None:
    async with arriving(folder) as arrived:
        for ticker in ("AAA", "BBB"):
            arrived.clear()
            shutil.rmtree(folder.folder)
            await until(folder.folder.is_dir, "a new folder")
            folder.write(ticker)
            await until(partial(lambda ticker: arrived == [ticker], ticker), ticker)
            await until(lambda: not waiting(folder), "its removal")
    assert lines(caplog) == []


@needs_events
@pytest.mark.usefixtures("events_only")
async def test_a_folder_that_is_replaced_by_a_link_is_watched_where_the_link_points(
    folder: TriggerFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere = TriggerFolder(tmp_path / "elsewhere")
    put_trigger(elsewhere, "THERE")
    # The two lie side by side, so that one rename puts the link in the folder's place.
    (tmp_path / "link").symlink_to(elsewhere.folder)
    async with arriving(folder) as arrived:
        folder.folder.rename(tmp_path / "old")
        (tmp_path / "link").rename(folder.folder)
        await until(lambda: arrived == ["THERE"], "what lay there already")
        elsewhere.write("NEXT")
        await until(lambda: arrived == ["THERE", "NEXT"], "what came afterwards")
    assert lines(caplog) == []


def is_watching() -> bool:
    """Whether this process watches any folder, as the system has it."""
    found = ""
    for descriptor in Path("/proc/self/fdinfo").iterdir():
        with suppress(FileNotFoundError):
            found += descriptor.read_text()
    return "inotify wd:" in found


def refuse(code: int) -> Callable[..., None]:
    def refused(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return refused


@needs_events
@pytest.mark.parametrize(
    ("refusing", "code"),
    [("Inotify", errno.EMFILE), ("Inotify.add_watch", errno.ENOSPC)],
    ids=["no instance left", "no watch left"],
)
async def test_where_inotify_is_used_up_the_folder_is_polled_until_it_is_not(
    folder: TriggerFolder,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    refusing: str,
    code: int,
) -> None:
    caplog.set_level("INFO")
    with monkeypatch.context() as used_up:
        used_up.setattr(f"newshead.monitor.triggers.{refusing}", refuse(code))
        async with arriving(folder) as arrived:
            folder.write("POLLED")
            await until(lambda: arrived == ["POLLED"], "the trigger")
            used_up.undo()
            await until(is_watching, "a watch")
            monkeypatch.setattr(triggers, "POLL_S", 3600.0)
            monkeypatch.setattr(triggers, "SCAN_S", 3600.0)
            folder.write("TOLD")
            await until(lambda: arrived == ["POLLED", "TOLD"], "a trigger with its event")
    [text] = polled(caplog)
    assert os.strerror(code) in text


async def test_on_a_system_without_inotify_the_folder_is_polled(
    folder: TriggerFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(sys, "platform", "darwin")
    async with arriving(folder) as arrived:
        folder.write("AAA")
        await until(lambda: arrived == ["AAA"], "the trigger")
    assert len(polled(caplog)) == 1


@needs_events
async def test_where_no_event_tells_of_a_trigger_the_folder_is_polled_from_then_on(
    folder: TriggerFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from asyncinotify import Inotify, Mask, Watch  # Linux only.

    # As on a network drive: the watch is granted, and no event ever comes.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    class Deaf(Inotify):
        def add_watch(self, _path: object, mask: Mask) -> Watch:
            return super().add_watch(elsewhere, mask)

    caplog.set_level("INFO")
    monkeypatch.setattr(triggers, "Inotify", Deaf)
    monkeypatch.setattr(triggers, "SCAN_S", 0.05)
    async with arriving(folder) as arrived:
        assert polled(caplog) == []
        folder.write("AAA")
        await until(lambda: arrived == ["AAA"], "a trigger without an event")
        monkeypatch.setattr(triggers, "SCAN_S", 3600.0)
        folder.write("BBB")
        await until(lambda: arrived == ["AAA", "BBB"], "the next one")
    assert len(polled(caplog)) == 1


@needs_events
async def test_events_that_come_are_never_taken_for_missing(
    folder: TriggerFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Triggers come at any moment of a scan."""
    caplog.set_level("INFO")
    monkeypatch.setattr(triggers, "SCAN_S", 0.0005)
    # Files of one tick of the system's clock come by their names.
    tickers = [f"T{n:03}" for n in range(400)]

    def write() -> None:
        for ticker in tickers:
            folder.write(ticker)
            time.sleep(0.0013)

    async with arriving(folder) as arrived:
        await asyncio.to_thread(write)
        await until(lambda: len(arrived) == len(tickers), "all of them")
    assert arrived == tickers
    assert polled(caplog) == []
