"""What the commands share as processes: arguments, exit codes, locks, signals, children.

And how they run: promptly, with few collections of garbage.
"""

import argparse
import asyncio
import fcntl
import gc
import logging
import os
import queue
import select
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import date
from pathlib import Path
from typing import Any, Final, NoReturn

from newshead import __version__
from newshead.logs import write_last_lines
from newshead.loop import described, in_background
from newshead.scheduling import ask_for_short_slices

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_MISCONFIGURED: Final = 2

# The folder that holds the commands.
CODE: Final = Path(__file__).parents[1].resolve()
# A process that has not ended this long after its parent ends at once.
STOP_TIMEOUT_S: Final = 5.0
# A process that has not ended this long after its first signal ends at once.
END_TIMEOUT_S: Final = 8.0
# Signals so close together are one: some wrappers pass on what the terminal has sent already.
SAME_SIGNAL_S: Final = 0.2
# A child that gives signs of life gives one this often; one without any for so many of these
# pauses, counted by this process's own turns, hangs.
PULSE_S: Final = 1.0
MAX_MISSED_PULSES: Final = 20
PULSE_BYTES: Final = 65_536
# Lines that wait for a child; far more than news brings until the next one is there.
MAX_LINES: Final = 1000
# Killed children delay a sudden end no longer than this.
CHILDREN_S: Final = 1.0
# The log's last lines delay a sudden end no longer than this.
LAST_LINES_S: Final = 0.5
# All that stays is loaded by then.
LOADED_AFTER_S: Final = 10.0
# So many new objects are reason to look for garbage; by default 700, of which an answer of the page
# may have a hundred thousand.
NEW_OBJECTS: Final = 100_000

STDOUT: Final = 1
# Leaves the alternate screen and shows the cursor; changes nothing on a terminal without a table.
PLAIN_TERMINAL: Final = b"\x1b[?1049l\x1b[?25h"

logger = logging.getLogger(__name__)
# Held from the beginning of a sudden end on: the end in order that it brings about by killing the
# children must not come before it, with another exit code.
_ending_at_once = threading.Lock()
# The processes of `run_child`, which a sudden end ends too.
_children: set[asyncio.subprocess.Process] = set()


class CommandLine(argparse.ArgumentParser):
    """Parse a command's arguments; refuse wrong ones in one sentence, with exit code 2.

    Every command has `--version`.
    """

    def __init__(self, **named: Any) -> None:
        super().__init__(**named)
        self.add_argument("--version", action="version", version=f"newshead {__version__}")

    def add_supervision(self) -> None:
        """Add what run_system.py gives the processes that it starts."""
        self.add_argument(
            "--supervised",
            action="store_true",
            help="set by run_system.py: end with it, and leave settings and the log's rotation "
            "to it",
        )
        self.add_argument(
            "--pulse",
            type=int,
            metavar="FD",
            help="set by run_system.py: the descriptor of a pipe for signs of life",
        )

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_MISCONFIGURED, f"{self.prog}: {message}; --help shows what there is.\n")


def day(text: str) -> date:
    """Return the day that an argument names."""
    with suppress(ValueError):
        found = date.fromisoformat(text)
        # Outside of this no column of ours could have it.
        if 1970 < found.year < 2100:
            return found
    raise argparse.ArgumentTypeError(f"{text!r} is no day such as 2026-01-02")


def give_up_output() -> None:
    """Write nothing more to standard output: whoever read it has read enough, and the interpreter
    must not try again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def lock_file(path: Path) -> int:
    """Take a lock that lasts until the descriptor it returns is closed, or the process ends.

    Raises
    ------
    BlockingIOError
        Another process holds it.
    OSError
        The file cannot be written.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


class Lines:
    """Lines for a child's standard input; without a child they wait for the next one.

    For the event loop of the process that has the child.
    """

    def __init__(self) -> None:
        self._waiting: deque[str] = deque(maxlen=MAX_LINES)
        self._pipe: asyncio.StreamWriter | None = None

    def send(self, line: str) -> None:
        """Hand a line over. Never waits."""
        self._waiting.append(line)
        self._write()

    def connect(self, pipe: asyncio.StreamWriter | None) -> None:
        """Note a child's standard input, or that it has ended."""
        self._pipe = pipe
        self._write()

    def _write(self) -> None:
        while self._waiting and self._pipe is not None and not self._pipe.is_closing():
            self._pipe.write(f"{self._waiting.popleft()}\n".encode())


async def until_stopped(
    work: Coroutine[Any, Any, None],
    *,
    with_parent: bool = False,
    take_line: Callable[[str], object] = str,
) -> None:
    """Run `work` until it ends, or until Ctrl-C or SIGTERM; then it is cancelled, once,
    and given the time it takes to clean up, which no exception of the cleanup undoes.

    A second signal ends this process and its children at once, with exit code 1, and so does
    the first one after 8 s. The end of the terminal (SIGHUP) ends nothing. This holds until the
    process ends, so this is for commands only.

    Parameters
    ----------
    with_parent
        End also when standard input closes: it is a pipe from the process that
        started this one, and closes however that process ends. Further signals
        are ignored: the parent passes on what a service manager may have sent
        to both, and kills this process if need be.
    take_line
        Called on the loop with each line that comes from the parent, see `Lines`; by default they
        are left.
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    stopping = False

    def stop() -> None:
        nonlocal stopping
        if not stopping:
            stopping = True
            task.cancel()

    def stop_soon() -> None:
        # The loop may have ended.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(stop)

    # The times of signals. A thread acts on them, since the loop may hang or have ended.
    signals: queue.SimpleQueue[float] = queue.SimpleQueue()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: signals.put(time.monotonic()))
        # As asyncio has it: no blocking call of the engine's threads breaks.
        signal.siginterrupt(number, False)
    _outlive_terminal(loop)
    threading.Thread(
        target=_follow_signals, args=(signals, stop_soon, not with_parent), daemon=True
    ).start()
    if with_parent:
        threading.Thread(
            target=_follow_parent, args=(stop_soon, loop, take_line), daemon=True
        ).start()
    try:
        await task
    except asyncio.CancelledError:
        pass
    except Exception as problem:
        if not stopping:
            raise
        logger.error("Stopped, but the cleanup failed: %s", described(problem))
    finally:
        with _ending_at_once:
            pass


def _outlive_terminal(loop: asyncio.AbstractEventLoop) -> None:
    """Let SIGHUP, the end of the terminal, be a line in the log and no more."""
    told = "The terminal has gone; newshead goes on. `kill %d` stops it."

    def tell(*_: object) -> None:
        # The loop may have ended.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(logger.warning, told, os.getpid())

    # nohup has it ignored.
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, tell)
        signal.siginterrupt(signal.SIGHUP, False)


async def run_child(
    name: str,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    descriptors: Sequence[int] = (),
    lines: Lines | None = None,
    take_pulse: Callable[[str], object] | None = None,
) -> int:
    """Run a part of newshead as a process until it ends; give its exit code.

    Its standard input is a pipe from here, so that it ends with this process
    however that ends.

    Parameters
    ----------
    environment
        Variables it has besides or in place of this process's.
    folder
        Where it is started; by default here.
    descriptors
        Those of this process that it has too.
    lines
        What is handed over to it while it runs.
    take_pulse
        Called with each sign of life that it gives, see `pulsing`; it is killed where they stay
        away. Without this it gives none.
    """
    paths = [str(CODE), *filter(None, [os.environ.get("PYTHONPATH")])]
    signs: tuple[int, ...] = os.pipe() if take_pulse is not None else ()
    given = [*descriptors, *signs[1:]]
    try:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            *(("--pulse", str(signs[1])) if signs else ()),
            "--supervised",
            stdin=asyncio.subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | dict(environment or {}),
            cwd=folder,
            pass_fds=given,
            # Ctrl-C reaches this process alone, which then ends its children in order.
            start_new_session=True,
        )
        logger.info("%s started, pid=%d", name, child.pid)
        _children.add(child)
        if lines is not None:
            lines.connect(child.stdin)
        try:
            if take_pulse is None:
                return await child.wait()
            async with in_background(_watch_pulse(name, child, signs[0], take_pulse)):
                return await child.wait()
        finally:
            if lines is not None:
                lines.connect(None)
            await _end(child)
    finally:
        for descriptor in signs:
            os.close(descriptor)


async def _end(child: asyncio.subprocess.Process) -> None:
    """End a child in order, or, where that takes too long, at once."""
    if child.returncode is None:
        child.terminate()
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await child.wait()
    if child.returncode is None:
        child.kill()
        await child.wait()
    _children.discard(child)


async def _watch_pulse(
    name: str,
    child: asyncio.subprocess.Process,
    signs: int,
    take_pulse: Callable[[str], object],
) -> None:
    """Kill a child that gives no sign of life any more."""
    os.set_blocking(signs, False)
    missed, rest = 0, b""
    while missed < MAX_MISSED_PULSES:
        await asyncio.sleep(PULSE_S)
        # Its own turns are counted: this process may have been stopped, or the machine asleep.
        missed += 1
        with suppress(BlockingIOError):
            if read := os.read(signs, PULSE_BYTES):
                missed = 0
                *lines, rest = (rest + read).split(b"\n")
                if lines:
                    take_pulse(lines[-1].decode(errors="replace"))
    logger.error(
        "%s hangs: no sign of life for %.0f s. It is killed.", name, MAX_MISSED_PULSES * PULSE_S
    )
    with suppress(ProcessLookupError):
        child.kill()


@asynccontextmanager
async def pulsing(descriptor: int | None, tell: Callable[[], str] = str) -> AsyncIterator[None]:
    """Give signs of life while the context lasts; without a descriptor there is nobody to."""
    if descriptor is None:
        yield
        return
    async with in_background(_give_pulse(descriptor, tell)):
        yield


async def _give_pulse(descriptor: int, tell: Callable[[], str]) -> None:
    """Write a line a second to a pipe from the process that started this one: its loop runs, and
    what `tell` says of it."""
    os.set_blocking(descriptor, False)
    while True:
        # A parent that does not read, or has ended, is no reason to end here.
        with suppress(BlockingIOError, BrokenPipeError):
            os.write(descriptor, f"{tell()}\n".encode())
        await asyncio.sleep(PULSE_S)


def _follow_parent(
    stop: Callable[[], None], loop: asyncio.AbstractEventLoop, take_line: Callable[[str], object]
) -> None:
    rest = b""
    while received := os.read(sys.stdin.fileno(), 4096):
        *lines, rest = (rest + received).split(b"\n")
        # The loop may have ended.
        with suppress(RuntimeError):
            for line in lines:
                loop.call_soon_threadsafe(take_line, line.decode(errors="replace"))
    stop()
    time.sleep(STOP_TIMEOUT_S)
    _end_at_once("Still running %.0f s after the parent's end: ending now.", STOP_TIMEOUT_S)


def _follow_signals(
    signals: "queue.SimpleQueue[float]", stop: Callable[[], None], second_counts: bool
) -> None:
    first = signals.get()
    stop()
    # The kernel's own timer, for what stops even this thread: a library that holds the
    # interpreter, or hangs once the interpreter has ended.
    signal.setitimer(signal.ITIMER_REAL, END_TIMEOUT_S + 1)
    with suppress(queue.Empty):
        while True:
            left_s = first + END_TIMEOUT_S - time.monotonic()
            another = signals.get(timeout=max(0.0, left_s))
            if second_counts and another - first >= SAME_SIGNAL_S:
                _end_at_once("Second signal: ending at once, rows not stored yet are lost.")
    _end_at_once("Still running %.0f s after the signal: ending now.", END_TIMEOUT_S)


def _end_at_once(told: str, *args: object) -> NoReturn:
    """End this process and its children now, with the log's last lines if they can be written."""
    _ending_at_once.acquire()
    children = [child for child in tuple(_children) if child.returncode is None]
    for child in children:
        with suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)
    _await_ends(children)
    # In a thread, since a terminal that stands still or a handler's lock may block it.
    last = threading.Thread(target=_write_last_lines, args=(told, *args), daemon=True)
    with suppress(RuntimeError):
        last.start()
        last.join(LAST_LINES_S)
    os._exit(EXIT_FAILED)


def _await_ends(children: Sequence[asyncio.subprocess.Process]) -> None:
    """Wait until killed children are gone: one that is writing to the log finishes its line."""
    deadline = time.monotonic() + CHILDREN_S
    for child in children:
        # Not waitpid(), which would take the end from the loop. The pipe breaks with the last
        # thread of the child; the loop may close this end of it at the same moment.
        with suppress(OSError, ValueError):
            broken = select.poll()
            broken.register(child.stdin.transport.get_extra_info("pipe"), 0)  # type: ignore[union-attr]
            broken.poll(max(0.0, deadline - time.monotonic()) * 1000)


def _write_last_lines(told: str, *args: object) -> None:
    logger.error(told, *args)
    write_last_lines()
    if os.isatty(STDOUT):
        os.write(STDOUT, PLAIN_TERMINAL)


def run_promptly(loaded_after_s: float = LOADED_AFTER_S) -> None:
    """Let the calling loop run as soon as it wakes, and pause little. For a command's main.

    A collection of garbage that goes through everything that was ever loaded holds up all threads
    of a process for 30 to 60 ms. So there is none while newshead starts, and what is loaded by then
    is left out afterwards.
    """
    ask_for_short_slices()
    gc.disable()
    asyncio.get_running_loop().call_later(loaded_after_s, _collect_the_rest)


def _collect_the_rest() -> None:
    gc.freeze()
    gc.enable()


def collect_seldom() -> None:
    """Look for garbage seldom, and not in what is loaded: for a process that makes many objects at
    once, few of which are garbage."""
    gc.set_threshold(NEW_OBJECTS)
    gc.freeze()
