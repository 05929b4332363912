"""What the push has sent, in a file, so that a restart sends nothing twice."""

import json
import logging
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from newshead.outage import Outage

logger = logging.getLogger(__name__)

# Nothing that is older is told by anybody.
KEPT_S: Final = 86_400.0


class SentMessages:
    """Which message each service took, and what was told lost and not yet back. Any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._guard = threading.Lock()
        self._outage = Outage()
        self._sent: dict[str, float] = {}
        self._lost: dict[str, str] = {}
        # A file that is missing or no longer whole means that nothing was sent.
        with suppress(OSError, ValueError, TypeError, AttributeError):
            read = json.loads(path.read_text(encoding="utf-8"))
            self._sent = {str(key): float(at) for key, at in read["sent"].items()}
            self._lost = {str(what): str(since) for what, since in read["lost"].items()}

    def has(self, service: str, message: str) -> bool:
        """Return whether a service took a message."""
        with self._guard:
            return f"{service} {message}" in self._sent

    def add(self, service: str, message: str) -> None:
        """Note that a service took a message. Blocks."""
        with self._guard:
            self._sent[f"{service} {message}"] = time.time()
            self._write()

    @property
    def lost(self) -> Mapping[str, str]:
        """What was told lost, with the words for since when."""
        with self._guard:
            return dict(self._lost)

    def set_lost(self, lost: Mapping[str, str]) -> None:
        """Note what is told lost now. Blocks where that changed."""
        with self._guard:
            if lost != self._lost:
                self._lost = dict(lost)
                self._write()

    def _write(self) -> None:
        oldest = time.time() - KEPT_S
        self._sent = {key: at for key, at in self._sent.items() if at > oldest}
        content: dict[str, Any] = {"sent": self._sent, "lost": self._lost}
        unfinished = self._path.with_suffix(".new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_text(json.dumps(content), encoding="utf-8")
            unfinished.replace(self._path)
        except OSError as problem:
            if self._outage.begins(str(problem)):
                logger.error("A restart may send messages twice: %s", problem)
        else:
            self._outage.ends()
