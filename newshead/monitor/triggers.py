"""The trigger file: how one is written, found, read, kept, removed and rejected.

A trigger says "news about this ticker, watch its price now". Programs write it
into `triggers/`; the price monitor takes it from there within milliseconds, and
keeps it in `triggers/tracked/` until it has a price of the ticker.
"""

import asyncio
import errno
import json
import logging
import os
import stat
import sys
import time
import uuid
from collections.abc import AsyncGenerator, Collection, Iterator, Mapping
from contextlib import closing, suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

from newshead.core.tickers import ibkr_name, parse_ticker
from newshead.loop import off_loop
from newshead.monitor.trigger_news import news_of
from newshead.outage import Outage

if sys.platform == "linux":
    from asyncinotify import Inotify, Mask, Watch

logger = logging.getLogger(__name__)

MAX_BYTES: Final = 64 * 1024
# So many files are looked at in one round, and so many of the system's events in one turn of the
# loop: more come in the next one.
MAX_FILES: Final = 1000
MAX_EVENTS: Final = 500
# So many triggers are taken together off the loop: a burst of them costs few changes of threads.
TAKEN_AT_ONCE: Final = 10
# A file that cannot be read is given this long to be written to its end.
SETTLE_S: Final = 2.0
# What lies there longer when the monitor starts is no news any more.
MAX_AGE_AT_START_S: Final = 300.0
# The folder is looked into this often although no event came, and where there are no events.
SCAN_S: Final = 0.5
POLL_S: Final = 0.01
# A link, a socket, a device without a driver: what cannot be opened so is no file.
NO_FILE_ERRORS: Final = (errno.ELOOP, errno.ENXIO, errno.ENODEV)


class UnreadableError(Exception):
    """The file holds no trigger (yet)."""


class RefusedError(Exception):
    """The file can never be a trigger."""


class Trigger(NamedTuple):
    """A trigger that was taken.

    `written_at` is Unix time; `kept_as` is its name in `tracked/`, None where it could not be
    moved there.
    """

    ticker: str
    written_at: float
    kept_as: str | None


class TriggerFolder:
    """The folder the trigger files are in. Not thread-safe: one reader."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rejected = folder / "rejected"
        self.tracked = folder / "tracked"
        # The names of the files there.
        self._kept: set[str] = set()
        # Links to triggers that bring their own news, until the news side has stored it.
        self.news = folder / "news"
        # name → (the state it was seen in, time.monotonic() when that was first seen)
        self._unreadable: dict[str, tuple[tuple[int, int], float]] = {}
        self._stuck: set[str] = set()
        self._outage = Outage()

    @property
    def problem(self) -> str:
        """Why the folder cannot be read; empty while it can. Any thread."""
        return self._outage.reason

    def write(self, ticker: str, timestamp: datetime | None = None) -> Path:
        """Write a trigger so that no reader ever sees half of it.

        Parameters
        ----------
        ticker
            As the news spells it.
        timestamp
            When the news came, aware; now by default.

        Raises
        ------
        ValueError
            `ticker` can be no ticker.
        OSError
            The folder cannot be written.
        """
        checked = parse_ticker(ticker)
        if checked is None:
            raise ValueError(f"{ticker!r} is no ticker.")
        now = datetime.now(UTC)
        content = {
            "ticker": checked,
            "timestamp": (timestamp or now).isoformat(),
            "trigger_type": "immediate_price_check",
            "created_at": now.isoformat(),
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"immediate_{checked.replace('/', '.')}_{int(now.timestamp())}.json"
        unfinished = self.folder / f".{name}.{uuid.uuid4().hex}"
        unfinished.write_text(json.dumps(content), encoding="utf-8")
        return unfinished.replace(self.folder / name)

    def take(self) -> Iterator[Trigger]:
        """Return the triggers that lie there, oldest first.

        Each is moved to `tracked/` before it is returned, where it stays until
        `keep_only`: whatever becomes of the caller, it is not lost. Tell `taken_in`
        once its ticker is tracked. What is no trigger is moved to `rejected/` with
        one line in the log; a file that may still be being written waits and
        delays no other.
        """
        for path in self._files():
            try:
                ticker, written_at, content = _read(path)
                self._link_news(path, content)
            except UnreadableError as problem:
                if self._settled(path):
                    self._reject(path, str(problem))
            except RefusedError as problem:
                self._reject(path, str(problem))
            except FileNotFoundError:
                continue
            else:
                yield Trigger(ticker, written_at, self._keep(path, ticker))

    def taken_in(self, trigger: Trigger) -> None:
        """Note that the ticker of a trigger is tracked: from now on `keep_only` decides."""
        if trigger.kept_as is not None:
            self._kept.add(trigger.kept_as)

    def take_up(self) -> Iterator[str]:
        """Return the tickers of the triggers that an earlier monitor kept, oldest first. For the
        monitor's start."""
        for _, name in self._found(self.tracked):
            path = self.tracked / name
            try:
                ticker, *_ = _read(path)
            except FileNotFoundError:
                continue
            except (UnreadableError, RefusedError) as problem:
                self._reject(path, str(problem))
            else:
                self._kept.add(name)
                yield ticker

    def keep_only(self, tickers: Collection[str]) -> None:
        """Remove what is kept in `tracked/` of all tickers but these, in whatever spelling."""
        for name in self._kept - {_kept_as(ticker) for ticker in tickers}:
            self._kept.discard(name)
            try:
                (self.tracked / name).unlink(missing_ok=True)
            except OSError as problem:
                logger.error("Trigger %a is done with but cannot be removed: %s", name, problem)

    async def arrivals(self) -> AsyncGenerator[Trigger]:
        """Yield the triggers as they come, for ever; each is taken in once the next is asked for.

        Close it when done with it. The folder is touched off the loop, which a file system that
        stands still does not stop.
        """
        with closing(FolderEvents(self.folder)) as events:
            while True:
                events.begin_round()
                taking = self._take_round(events)
                while some := await off_loop(_next_few, taking):
                    for trigger in some:
                        events.found()
                        yield trigger
                        self.taken_in(trigger)
                await events.wait()

    def _take_round(self, events: "FolderEvents") -> Iterator[Trigger]:
        events.follow()
        yield from self.take()

    def reject_old(self) -> None:
        """Move aside what was left there too long ago to be news. For the monitor's start."""
        for folder in (self.folder, self.tracked):
            for modified_ns, name in self._found(folder):
                age = time.time() - modified_ns / 1e9
                if age > MAX_AGE_AT_START_S:
                    self._reject(folder / name, f"it is {age / 60:.0f} minutes old")

    def _files(self) -> list[Path]:
        found = self._found(self.folder)
        if self._outage.lasts:
            return []
        self._stuck = {name for name in self._stuck if os.path.lexists(self.folder / name)}
        names = {name for _, name in found}
        self._unreadable = {n: seen for n, seen in self._unreadable.items() if n in names}
        return [self.folder / name for _, name in found]

    def _found(self, folder: Path) -> list[tuple[int, str]]:
        try:
            if not folder.exists():
                folder.mkdir(parents=True)
            with os.scandir(folder) as entries:
                waiting = (
                    entry
                    for entry in entries
                    if _may_be_one(entry.name) and entry.name not in self._stuck
                )
                found = [(_modified(entry), entry.name) for entry in islice(waiting, MAX_FILES)]
        except OSError as problem:
            if self._outage.begins(str(problem)):
                logger.error(
                    "The trigger folder cannot be read, triggers are not picked up: %s", problem
                )
            return []
        self._outage.ends()
        return sorted(found)

    def _settled(self, path: Path) -> bool:
        try:
            state = path.lstat()
        except FileNotFoundError:
            return False
        seen = (state.st_size, state.st_mtime_ns)
        before = self._unreadable.get(path.name)
        if before is None or before[0] != seen:
            self._unreadable[path.name] = (seen, time.monotonic())
            return False
        return time.monotonic() - before[1] >= SETTLE_S

    def _link_news(self, path: Path, content: Mapping[str, Any]) -> None:
        """Link a trigger that brings its own news to where the news side finds it."""
        news, unusable = news_of(content)
        if unusable:
            logger.warning(
                "Trigger %a counts as if it had no %s, which must be text, and a time ISO 8601.",
                path.name,
                " or ".join(unusable),
            )
        if news is None:
            return
        link = self.news / path.name
        try:
            self.news.mkdir(parents=True, exist_ok=True)
            try:
                link.hardlink_to(path)
            except FileExistsError:
                # Another trigger of the same second, unless a crash left this one half done.
                if not link.samefile(path):
                    link.with_stem(f"{link.stem}.{time.time_ns()}").hardlink_to(path)
        except FileNotFoundError:
            # It was removed meanwhile, like a trigger that is.
            return
        except OSError as problem:
            logger.warning(
                "The news of trigger %a cannot be linked into %s, it is not rated: %s",
                path.name,
                self.news,
                problem,
            )

    def _keep(self, path: Path, ticker: str) -> str | None:
        """Move a trigger to `tracked/`; return its name there, if it got there."""
        name = _kept_as(ticker)
        try:
            self.tracked.mkdir(exist_ok=True)
            path.rename(self.tracked / name)
        except FileNotFoundError:
            # Somebody else removed it.
            return None
        except OSError as problem:
            self._stuck.add(path.name)
            logger.error(
                "Trigger %a was handled but cannot be moved to %s: %s",
                path.name,
                self.tracked,
                problem,
            )
            return None
        return name

    def _reject(self, path: Path, reason: str) -> None:
        try:
            self.rejected.mkdir(parents=True, exist_ok=True)
            aside = self.rejected / path.name
            if os.path.lexists(aside):
                aside = self.rejected / f"{path.name}.{time.time_ns()}"
            path.rename(aside)
        except OSError as problem:
            self._stuck.add(path.name)
            logger.error("Invalid trigger %a could not be moved aside: %s", path.name, problem)
        else:
            logger.warning("Trigger %a was moved to %s: %s.", path.name, self.rejected, reason)


class FolderEvents:
    """Wake its one reader when a trigger comes into a folder or changes there.

    Linux tells of that at once (inotify). It does not where another machine writes into the
    folder (a network drive, Windows below WSL2, a container's mount), nor when the user's
    watches are used up, nor does another system: then the reader is woken every POLL_S. It is
    woken every SCAN_S in any case, and a trigger that it then finds, and no event told of,
    proves that there are none here. For an event loop.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._inotify: Inotify | None = None
        self._watch: Watch | None = None
        self._came = asyncio.Event()
        # Whether what is found now was told of, or lay there before it could be.
        self._told = True
        self._none_here = sys.platform != "linux"
        self._reason = ""
        if self._none_here:
            self._say_polled("this system has no inotify")

    def begin_round(self) -> None:
        """Note that the folder is looked into from now on. On the loop."""
        self._told = self._came.is_set()
        self._came.clear()
        if self._inotify is None and not self._none_here:
            self._begin()

    def follow(self) -> None:
        """Watch the folder that bears the name now. Blocks; call it before you look into it."""
        inotify = self._inotify
        if inotify is None:
            return
        try:
            watch = self._new_watch(inotify)
        except OSError as problem:
            # A stop may come in the middle of this.
            if self._inotify is None:
                return
            self._watch = None
            # That the folder is missing or may not be read is said by who reads it.
            if problem.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
                self._say_polled(str(problem.strerror))
            return
        if watch is not self._watch:
            self._leave()
            self._watch = watch
            self._told = True

    def found(self) -> None:
        """Note that a trigger was found."""
        if self._told or self._watch is None:
            return
        self._read()
        if not self._came.is_set():
            self._none_here = True
            self.close()
            self._say_polled("a trigger came without an event")

    async def wait(self) -> None:
        """Come back when there may be something new, or when it is time to look anyway."""
        with suppress(TimeoutError):
            async with asyncio.timeout(POLL_S if self._watch is None else SCAN_S):
                await self._came.wait()

    def close(self) -> None:
        """End the watch."""
        inotify, self._inotify, self._watch = self._inotify, None, None
        if inotify is not None:
            asyncio.get_running_loop().remove_reader(inotify.fd)
            inotify.close()

    def _begin(self) -> None:
        try:
            self._inotify = Inotify(sync_timeout=0)
        except OSError as problem:
            self._say_polled(str(problem.strerror))
            return
        asyncio.get_running_loop().add_reader(self._inotify.fd, self._read)

    def _new_watch(self, inotify: "Inotify") -> Watch:
        """Return the watch for the folder: the same one as long as it is the same folder."""
        # That the folder itself was removed is told in any case.
        kinds = Mask.CREATE | Mask.MOVED_TO | Mask.MODIFY | Mask.ATTRIB | Mask.MOVE_SELF
        return inotify.add_watch(self._folder, kinds | Mask.ONLYDIR)

    def _read(self) -> None:
        # The folder's own events have no name.
        for event in islice(self._inotify or (), MAX_EVENTS):
            if event.name is None or _may_be_one(event.name.name):
                self._came.set()

    def _leave(self) -> None:
        # A folder that was removed has taken its watch with it.
        if self._inotify is not None and self._watch is not None:
            with suppress(OSError):
                self._inotify.rm_watch(self._watch)
        self._watch = None

    def _say_polled(self, reason: str) -> None:
        if reason != self._reason:
            self._reason = reason
            logger.info(
                "Polling the folder %s every %.0f ms: no file system events (%s).",
                self._folder,
                POLL_S * 1000,
                reason,
            )


def _next_few(taking: Iterator[Trigger]) -> list[Trigger]:
    return list(islice(taking, TAKEN_AT_ONCE))


def _may_be_one(name: str) -> bool:
    """Return whether a file of that name may be a trigger."""
    return name.startswith("immediate_") and name.endswith(".json")


def _kept_as(ticker: str) -> str:
    """Return the name under which a ticker's trigger is kept, whatever its spelling."""
    return f"immediate_{ibkr_name(ticker)}.json"


def _modified(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_mtime_ns
    except FileNotFoundError:
        return 0


def _read(path: Path) -> tuple[str, float, Mapping[str, Any]]:
    """Return a trigger's ticker, when it was written, and its content."""
    content, modified_at = content_of(path)
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as problem:
        raise UnreadableError("it is not JSON") from problem
    ticker = parse_ticker(found.get("ticker") if isinstance(found, dict) else None)
    if ticker is None:
        raise RefusedError("it names no ticker")
    return ticker, modified_at, found


def content_of(path: Path) -> tuple[bytes, float]:
    """Return a file's content and when it was written.

    What lies there may be another thing at each look: it is judged by what was opened, and
    opening neither waits for a pipe's writer nor follows a link.

    Raises
    ------
    UnreadableError, RefusedError, FileNotFoundError
        It holds no trigger yet, can never be one, or has gone.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            state = os.fstat(descriptor)
            if not stat.S_ISREG(state.st_mode):
                raise RefusedError("it is no regular file")
            content = os.read(descriptor, MAX_BYTES + 1)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise
    except OSError as problem:
        if problem.errno in NO_FILE_ERRORS:
            raise RefusedError("it is no regular file") from problem
        raise UnreadableError(f"it cannot be read ({problem.strerror})") from problem
    if len(content) > MAX_BYTES:
        raise RefusedError(f"it is over {MAX_BYTES // 1024} KB")
    return content, state.st_mtime
