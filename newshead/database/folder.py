"""The embedded engine's folder: who has it open, what wrote it, what passes through it.

All of this blocks and belongs off the event loop.
"""

import functools
import os
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar, Final

from newshead.process import lock_file

# Where inserts into the embedded engine pass through files, in its folder.
INSERTS_FOLDER: Final = "newshead-inserts"
LOCK_FILE: Final = "newshead.lock"
# Holds the version of the newest engine that has opened the folder.
ENGINE_NOTE: Final = "newshead-engine"


class NewerEngineError(Exception):
    """A newer engine has written the folder; the text says which, and what to do."""


def require_same_engine(folder: Path) -> None:
    """Make sure that no newer engine has written the folder.

    An older one puts aside in silence what it cannot read.

    Raises
    ------
    NewerEngineError
        One has.
    """
    noted, own = _noted(folder), _engine()
    if _release(noted) > _release(own):
        raise NewerEngineError(
            f"it was written by version {noted} of the engine, and this is {own}, which would put "
            "aside what it cannot read. Install the newer newshead again (make installs the "
            "engine with it), or set CLICKHOUSE_PATH to another folder."
        )


def note_engine(folder: Path) -> None:
    """Note that this engine has opened the folder, for older ones."""
    noted, own = _noted(folder), _engine()
    if _release(own) > _release(noted):
        # On a full disk the next start notes it.
        with suppress(OSError):
            fresh = folder / f"{ENGINE_NOTE}.new"
            fresh.write_text(f"{own}\n")
            fresh.replace(folder / ENGINE_NOTE)


def _engine() -> str:
    # Not above: with a server the engine's library is not needed.
    import chdb

    return str(chdb.engine_version)


def _noted(folder: Path) -> str:
    with suppress(OSError, UnicodeError):
        return (folder / ENGINE_NOTE).read_text().strip()
    return ""


def _release(version: str) -> tuple[int, ...]:
    """Return the first two numbers of a version: others change no format."""
    numbers = version.split(".")[:2]
    return tuple(map(int, numbers)) if all(number.isdecimal() for number in numbers) else ()


def keep_inserts_in(folder: Path) -> None:
    """Let the driver of the embedded engine pass inserts through files in the engine's folder.

    By itself it does so in TMPDIR, which may be full or gone, and has no option for it. Here its
    module alone gets another `tempfile`; the process keeps its own.
    """
    try:
        # Not above: with a server the engine's library is not needed.
        from clickhouse_connect.driver._backend import chdb_backend
    except ImportError:
        # Another release of the driver; it goes on with TMPDIR.
        return
    inserts = folder.resolve() / INSERTS_FOLDER
    in_folder = functools.partial(tempfile.NamedTemporaryFile, dir=inserts)
    vars(chdb_backend)["tempfile"] = SimpleNamespace(NamedTemporaryFile=in_folder)


def emptied_files(path: Path) -> str:
    """Return what to do about an embedded database that a full disk ruined, or an empty text."""
    found: list[str] = []
    with suppress(OSError):
        found = sorted(
            str(file.relative_to(path)) for file in path.rglob("*.sql") if not file.stat().st_size
        )
    if not found:
        return ""
    return (
        f"a full disk left these files empty: {', '.join(found)}. Copy the folder, then move them "
        "out of it: their tables start anew. docs/troubleshooting.md, "
        '"An embedded database that does not open", says how to keep their rows.'
    )


def _bears_its_name(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


class FolderLock:
    """This process's hold on an embedded database's folder, shared by its connections.

    chDB's own refusal of a second process says nothing that a user could act on.
    """

    _guard: ClassVar = threading.Lock()
    # folder → its lock's file descriptor and the number of connections that hold it
    _held: ClassVar[dict[Path, tuple[int, int]]] = {}

    def __init__(self, folder: Path) -> None:
        """Take the hold; raise BlockingIOError when another process has it."""
        self._folder = folder.resolve()
        with self._guard:
            descriptor, holders = self._held.get(self._folder, (-1, 0))
            if holders == 0:
                descriptor = lock_file(self._folder / LOCK_FILE)
                try:
                    self._empty_inserts()
                except OSError:
                    os.close(descriptor)
                    raise
            self._held[self._folder] = (descriptor, holders + 1)

    @classmethod
    def gone(cls) -> list[Path]:
        """Return the folders held by this process that are not where they were."""
        with cls._guard:
            return [
                folder
                for folder, (descriptor, _) in cls._held.items()
                if not _bears_its_name(descriptor, folder / LOCK_FILE)
            ]

    def _empty_inserts(self) -> None:
        """Remove what inserts of a killed process left."""
        inserts = self._folder / INSERTS_FOLDER
        inserts.mkdir(exist_ok=True)
        for left in inserts.iterdir():
            left.unlink()

    def release(self) -> None:
        with self._guard:
            descriptor, holders = self._held.pop(self._folder)
            if holders > 1:
                self._held[self._folder] = (descriptor, holders - 1)
            else:
                os.close(descriptor)
