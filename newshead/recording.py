"""Recordings: all that the price monitor's decisions rest on, in a file per process.

`docs/replay.md` describes the format; `entries` reads it.
"""

import asyncio
import json
import logging
import os
import re
import struct
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Generic, NamedTuple, Self, TypeVar

from newshead.loop import off_loop
from newshead.outage import Outage
from newshead.tape import ANSWERS, Kind, Tape
from newshead.tws.account import masked

if sys.version_info >= (3, 14):
    from compression import zstd as zstd
else:
    from backports import zstd as zstd

logger = logging.getLogger(__name__)

T = TypeVar("T")

VERSION: Final = 1
MAGIC: Final = b"newshead recording %d\n"
# Length of the body, kind, client, microseconds since 1970, monotonic seconds.
HEADER: Final = struct.Struct("!IBHqd")
SUFFIX: Final = ".rec.zst"
NAME: Final = re.compile(r"newshead-\d{8}T\d{6}Z-\d+\.rec\.zst")
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

# What waits to be written goes to the kernel this often, and before rows are stored; those wait
# no longer than HAND_OVER_S for it.
WRITE_EVERY_S: Final = 0.5
HAND_OVER_S: Final = 0.1
CLOSE_TIMEOUT_S: Final = 1.0
# A disk that takes nothing for so long ends the recording.
MAX_WAITING_BYTES: Final = 64 * 2**20
# The folder's size is looked at each time the file has grown by so much.
PRUNE_EVERY_BYTES: Final = 16 * 2**20
# A longer entry is none.
MAX_ENTRY_BYTES: Final = 256 * 2**20
READ_BYTES: Final = 1 << 18


class RecordingError(Exception):
    """A file is no recording that this release can read; the text says why."""


class Entry(NamedTuple):
    """An entry: what it tells of, when (aware UTC; monotonic seconds), and of which client.

    `body` is JSON, or the bytes of a chunk; `details` reads it.
    """

    kind: Kind
    at: datetime
    monotonic: float
    client: int
    body: bytes

    @property
    def details(self) -> Any:
        """What `Tape.step` was told."""
        return json.loads(self.body, object_hook=_decoded)


def encoded(details: object) -> bytes:
    """Return an entry's details as they are written."""
    return json.dumps(details, default=_encoded, separators=(",", ":")).encode()


def entries(path: Path) -> Generator[Entry]:
    """Yield a recording's entries up to its end, or to the last whole one.

    One that was closed in order ends with Kind.END.

    Raises
    ------
    RecordingError
        It cannot be read, or is of another version.
    """
    with closing(_Unread(path)) as data:
        yield from _entries(path, data)


def _entries(path: Path, data: "_Unread") -> Iterator[Entry]:
    if (magic := data.take(len(MAGIC % VERSION))) != MAGIC % VERSION:
        what = "of another release" if (magic or b"").startswith(MAGIC[:18]) else "no recording"
        raise RecordingError(f"{path} is {what}.")
    while (header := data.take(HEADER.size)) is not None:
        length, kind, client, microseconds, monotonic = HEADER.unpack(header)
        if length > MAX_ENTRY_BYTES or (body := data.take(length)) is None:
            return
        try:
            known = Kind(kind)
        except ValueError:
            raise RecordingError(f"{path} has an entry of the unknown kind {kind}.") from None
        yield Entry(known, time_of(microseconds), monotonic, client, body)


def time_of(microseconds: int) -> datetime:
    """Return the time that an entry tells."""
    return EPOCH + timedelta(microseconds=microseconds)


class Recorder(Tape):
    """Write down what happens, in the one order that it happens in.

    A step holds a lock to its end. Entries are written by a thread; nothing but the hand-over
    before an insert waits for it.
    """

    def __init__(self, folder: Path, max_bytes: int, settings: Mapping[str, Any]) -> None:
        """
        Parameters
        ----------
        max_bytes
            All recordings in the folder together; the oldest go first.
        settings
            Those in force; no secrets.
        """
        self._folder = folder
        self._max_bytes = max_bytes
        self._order = threading.RLock()
        self._depth = 0
        self._at = EPOCH
        self._microseconds, self._monotonic = 0, 0.0
        self._clients = 0
        self._asks = 0
        self._hidden: dict[bytes, bytes] = {}
        # Headers and bodies in turn, and how many entries there were and are in the file.
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._noted = self._written = 0
        self._late = Outage()
        self._over = False
        self._closing = False
        self._wanted = threading.Event()
        self._progress = threading.Condition()
        self._thread: threading.Thread | None = None
        self.note(Kind.BEGIN, settings)

    # --- What the monitor tells ---------------------------------------------

    def open(self) -> None:
        """Begin the file; a failure ends the recording with a line."""
        began = datetime.now(UTC)
        path = self._folder / f"newshead-{began:%Y%m%dT%H%M%SZ}-{os.getpid()}{SUFFIX}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as problem:
            self._end(f"{path} cannot be written ({problem.strerror})")
            return
        logger.info("Recording to %s.", path)
        self._thread = threading.Thread(
            target=self._write_all, args=(descriptor, path), name="recording", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """End the file."""
        with self._order:
            self.note(Kind.END)
            self._closing = True
        self._wanted.set()
        if self._thread is not None:
            self._thread.join(CLOSE_TIMEOUT_S)

    def utc(self) -> datetime:
        with self._order:
            if not self._depth:
                self.note(Kind.NOW)
            return self._at

    def monotonic(self) -> float:
        with self._order:
            if not self._depth:
                self.note(Kind.NOW)
            return self._monotonic

    def step(self, kind: Kind, *details: Any, client: int = 0) -> Self:
        self._order.acquire()
        try:
            self.note(kind, *details, client=client)
        except BaseException:
            self._order.release()
            raise
        self._depth += 1
        return self

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._depth -= 1
        self._order.release()

    def note(self, kind: Kind, *details: Any, client: int = 0) -> None:
        with self._order:
            # In a step it is always the time of its beginning.
            if not self._depth:
                self._microseconds, self._monotonic = time.time_ns() // 1000, time.monotonic()
                self._at = time_of(self._microseconds)
            if self._over or self._closing:
                return
            body = details[0] if kind is Kind.CHUNK else encoded(details)
            for name, mask in self._hidden.items():
                body = body.replace(name, mask)
            self._waiting += (
                HEADER.pack(len(body), kind, client, self._microseconds, self._monotonic),
                body,
            )
            self._noted += 1
            self._waiting_bytes += len(body)
            if self._waiting_bytes > MAX_WAITING_BYTES:
                self._end("the disk is too slow")

    def new_client(self, client: object) -> int:  # noqa: ARG002
        self._clients += 1
        return self._clients

    def hide(self, names: list[str]) -> None:
        """Mask these from here on, and in what waits: so in the chunk that told of them."""
        with self._order:
            for name in names:
                self._hidden[name.encode()] = masked(name).encode()
                hidden, mask = name.encode(), self._hidden[name.encode()]
                self._waiting[1::2] = [b.replace(hidden, mask) for b in self._waiting[1::2]]

    async def ask(self, function: Callable[..., T], *args: Any) -> T:
        return await self._answered(function, args, lambda _: None)

    async def store(self, function: Callable[..., T], *args: Any) -> T:
        return await self._answered(function, args, lambda _: None, before=self._hand_over)

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        return await self._answered(function, args, lambda value: value)

    async def _answered(
        self,
        function: Callable[..., T],
        args: tuple[Any, ...],
        kept: Callable[[T], object],
        before: Callable[[], None] | None = None,
    ) -> T:
        """Run a function off the loop; note its answer where the loop takes it."""
        with self._order:
            self._asks += 1
            number = self._asks
        self.note(Kind.ASK, number, getattr(function, "__name__", ""))
        question = _Question(function, args)

        def ask() -> T:
            if before is not None:
                before()
            try:
                return question.put()
            finally:
                # Whoever waited was cancelled; what was stored is stored all the same.
                with self._order:
                    question.over = True
                    if question.abandoned:
                        self._note_answer(number, question, None, waited=False)

        try:
            value = await off_loop(ask)
        except asyncio.CancelledError:
            with self._order:
                question.abandoned = True
                if question.over:
                    self._note_answer(number, question, None, waited=False)
            raise
        except Exception:
            self._note_answer(number, question, None, waited=True)
            raise
        self._note_answer(number, question, kept(value), waited=True)
        return value

    def _note_answer(
        self, number: int, question: "_Question[Any]", value: object, *, waited: bool
    ) -> None:
        self.note(Kind.ANSWER, number, question.answers, question.failure, value, waited)

    # --- The file -----------------------------------------------------------

    def _hand_over(self) -> None:
        """Wait until the kernel has what was noted so far, for at most HAND_OVER_S."""
        with self._order:
            noted = self._noted
        self._wanted.set()
        with self._progress:
            in_time = self._progress.wait_for(
                lambda: self._over or self._written >= noted, HAND_OVER_S
            )
        if in_time:
            self._late.ends()
            return
        self.note(Kind.LATE)
        level = logging.WARNING if self._late.begins() else logging.DEBUG
        logger.log(
            level,
            "The recording's disk took over %.0f ms: rows are stored before it has them.",
            HAND_OVER_S * 1000,
        )

    def _write_all(self, descriptor: int, path: Path) -> None:
        """Write what waits until all is written. The recording's thread."""
        packer = zstd.ZstdCompressor()
        # A block of its own: wherever the file is cut, it is known for what it is.
        begin = packer.compress(MAGIC % VERSION) + packer.flush(packer.FLUSH_BLOCK)
        size, pruned_at = len(begin), -PRUNE_EVERY_BYTES
        try:
            _write(descriptor, begin)
            while not self._over:
                with self._order:
                    self._wanted.clear()
                    closing = self._closing
                    waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
                    noted = self._noted
                if waiting or closing:
                    packed = packer.compress(b"".join(waiting))
                    packed += packer.flush(packer.FLUSH_FRAME if closing else packer.FLUSH_BLOCK)
                    _write(descriptor, packed)
                    size += len(packed)
                with self._progress:
                    self._written = noted
                    self._progress.notify_all()
                if size - pruned_at >= PRUNE_EVERY_BYTES:
                    pruned_at = size
                    self._prune(path)
                if closing:
                    return
                self._wanted.wait(WRITE_EVERY_S)
        except OSError as problem:
            self._end(f"{path} cannot be written ({problem.strerror})")
        finally:
            os.close(descriptor)

    def _prune(self, current: Path) -> None:
        """Remove the oldest recordings until all together are small enough."""
        sizes: dict[Path, int] = {}
        for path in sorted(self._folder.iterdir()):
            if NAME.fullmatch(path.name):
                with suppress(FileNotFoundError):
                    sizes[path] = path.stat().st_size
        total = sum(sizes.values())
        for path in sizes:
            if total <= self._max_bytes:
                return
            if path == current:
                continue
            path.unlink(missing_ok=True)
            total -= sizes[path]
            logger.info("Removed the recording %s: over RECORD_MAX_GB.", path.name)
        if total > self._max_bytes:
            self._end(f"{current.name} alone is over RECORD_MAX_GB")

    def _end(self, why: str) -> None:
        """End the recording before its time."""
        with self._order:
            if self._over:
                return
            self._over = True
            self._waiting, self._waiting_bytes = [], 0
        with self._progress:
            self._progress.notify_all()
        logger.error("The recording ended: %s. newshead goes on without.", why)


class _Question(Generic[T]):
    """A blocking call, and what the database answered to it."""

    def __init__(self, function: Callable[..., T], args: tuple[Any, ...]) -> None:
        self._function = function
        self._args = args
        self.answers: list[Any] = []
        # The exception's class, its code and its text.
        self.failure: list[Any] | None = None
        self.over = self.abandoned = False

    def put(self) -> T:
        token = ANSWERS.set(self.answers)
        try:
            return self._function(*self._args)
        except Exception as problem:
            code = getattr(problem, "code", None)
            self.failure = [type(problem).__name__, code, str(problem)]
            raise
        finally:
            ANSWERS.reset(token)


class _Unread:
    """What a file holds, unpacked as far as it is needed."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("rb")
        except OSError as problem:
            raise RecordingError(f"{path} cannot be read: {problem.strerror}.") from problem
        self._unpacker = zstd.ZstdDecompressor()
        self._data = bytearray()
        self._at = 0

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def take(self, count: int) -> bytes | None:
        """Return the next bytes, or None if there are fewer."""
        while len(self._data) - self._at < count:
            if not self._unpack():
                return None
        taken = bytes(self._data[self._at : self._at + count])
        self._at += count
        return taken

    def _unpack(self) -> bool:
        if self._unpacker.eof:
            return False
        packed = b""
        if self._unpacker.needs_input:
            packed = self._file.read(READ_BYTES)
            if not packed:
                return False
        try:
            more = self._unpacker.decompress(packed, max_length=READ_BYTES)
        except zstd.ZstdError:
            # Damaged from here on.
            return False
        del self._data[: self._at]
        self._at = 0
        self._data += more
        return True


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _encoded(value: Any) -> Any:
    if isinstance(value, datetime):
        return {"time": value.isoformat()}
    # Nothing that newshead asks for; to fail here would cost a row.
    return str(value)


def _decoded(value: dict[str, Any]) -> Any:
    if value.keys() == {"time"}:
        return datetime.fromisoformat(value["time"])
    return value
