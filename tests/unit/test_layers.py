"""The rooms of the code: arrows run only down, and never in a circle."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
COMMANDS = {
    *("run_system", "price_checker", "demo", "newshead.check", "newshead.replay"),
    "newshead.results",
}
# The rooms from top to bottom: each may use those below it and itself.
ROOMS = [
    COMMANDS,
    {"ibkr_client", "clickhouse_manager"},
    {"newshead.news", "dashboard"},
    {"newshead.monitor", "newshead.recording", "newshead.supervision"},
    {"newshead.database", "newshead.tws"},
    {
        *("newshead.process", "newshead.logs", "newshead.loop", "newshead.scheduling"),
        *("newshead.proxies", "newshead.listening", "newshead.tape"),
    },
    {"newshead.settings", "newshead.text", "newshead.outage", "newshead.core"},
]
STANDARD = set(sys.stdlib_module_names)
IMPURE = {"asyncio", "socket", "selectors", "threading", "time", "logging", "os", "pathlib"}


@cache
def modules() -> dict[str, Path]:
    """All modules of the product, by their names."""
    files = [
        *PROJECT.glob("*.py"),
        *(PROJECT / "newshead").rglob("*.py"),
        *(PROJECT / "dashboard").rglob("*.py"),
        *(PROJECT / "simulator").rglob("*.py"),
    ]
    found = {}
    for file in files:
        parts = file.relative_to(PROJECT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


@cache
def imports(name: str) -> frozenset[str]:
    """The modules that a module imports, wherever it does so, but for names of types."""
    return imports_of(modules()[name])


def imports_of(file: Path) -> frozenset[str]:
    found = set()
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for block in [node for node in ast.walk(tree) if isinstance(node, ast.If)]:
        if isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING":
            block.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {
                inner if (inner := f"{node.module}.{alias.name}") in modules() else node.module
                for alias in node.names
            }
    return frozenset(found)


def room_of(name: str) -> str | None:
    """The room that a module is in."""
    for room in (each for level in ROOMS for each in level):
        if name == room or name.startswith(f"{room}."):
            return room
    return None


def own_imports() -> Iterator[tuple[str, str]]:
    for name in modules():
        for used in imports(name):
            if used in modules():
                yield name, used


def test_there_is_no_circle() -> None:
    # Raises on one.
    TopologicalSorter({name: imports(name) & modules().keys() for name in modules()}).prepare()


def test_nothing_imports_upward() -> None:
    level_of = {room: number for number, level in enumerate(ROOMS) for room in level}
    wrong = [
        f"{name} imports {used}"
        for name, used in own_imports()
        if (room := room_of(name)) is not None
        and (other := room_of(used)) is not None
        and room != other
        and level_of[other] < level_of[room]
    ]
    assert not wrong


@pytest.mark.parametrize(
    ("room", "other"),
    [
        ("newshead.tws", "newshead.database"),
        ("newshead.database", "newshead.tws"),
        ("ibkr_client", "newshead.database"),
        ("newshead.news", "newshead.tws"),
        ("newshead.monitor", "newshead.news"),
    ],
)
def test_a_room_knows_nothing_of_another(room: str, other: str) -> None:
    wrong = [
        f"{name} imports {used}"
        for name, used in own_imports()
        if room_of(name) == room and room_of(used) == other
    ]
    assert not wrong


def test_the_core_imports_neither_io_nor_clock_nor_log() -> None:
    for name in modules():
        if room_of(name) == "newshead.core":
            used = {each for each in imports(name) if not each.startswith("newshead.core")}
            assert not {each.partition(".")[0] for each in used} & IMPURE, name
            assert {each.partition(".")[0] for each in used} <= STANDARD | {"newshead"}, name
            assert not {each for each in used if each.startswith("newshead.")} - {"newshead"}, name


@pytest.mark.parametrize(
    "name",
    [
        "newshead.news.alpaca_message",
        "newshead.news.clock",
        "newshead.news.message",
        "newshead.news.exchanges",
        "newshead.news.intake",
        "newshead.news.reconnect",
    ],
)
def test_an_article_is_read_and_taken_without_io_or_clock(name: str) -> None:
    assert not {each.partition(".")[0] for each in imports(name)} & (IMPURE - {"logging"})
    assert {each for each in imports(name) if each in modules()} <= {
        "newshead.core.tickers",
        "newshead.news.clock",
        "newshead.news.exchanges",
        "newshead.news.message",
        "newshead.outage",
        "newshead.text",
    }


def test_the_simulator_imports_nothing_of_the_product() -> None:
    product = {name for name in modules() if not name.startswith("simulator")}
    for name in modules():
        if name.startswith("simulator"):
            assert not imports(name) & product, name


@pytest.mark.parametrize("reader", ["dashboard", "newshead.replay", "newshead.results"])
def test_a_reader_knows_of_the_database_only(reader: str) -> None:
    allowed = {
        reader,
        "newshead",
        "newshead.core",
        "newshead.database",
        "newshead.settings",
        "newshead.text",
        "newshead.outage",
        "newshead.recording",
        # What every command needs: its arguments, its log, its loop.
        "newshead.process",
        "newshead.logs",
        "newshead.loop",
        "newshead.proxies",
    }
    wrong = [
        f"{name} imports {used}"
        for name, used in own_imports()
        if room_of(name) == reader
        # It plays the price monitor itself.
        and name != "newshead.replay.recorded"
        and (room_of(used) or used) not in allowed
    ]
    assert not wrong


def test_no_test_file_imports_from_another() -> None:
    files = [*(PROJECT / "tests/unit").rglob("*.py"), *(PROJECT / "tests/live").rglob("*.py")]
    wrong = [
        f"{file.relative_to(PROJECT)} imports {used}"
        for file in files
        for used in imports_of(file)
        if used.partition(".")[0] == "tests" or used.rpartition(".")[2].startswith("test_")
    ]
    assert not wrong


def test_help_loads_neither_the_simulator_nor_the_web_server() -> None:
    code = (
        "import sys\n"
        "from contextlib import suppress\n"
        "import run_system\n"
        "with suppress(SystemExit):\n"
        "    run_system.main(['--help'])\n"
        "print({name.partition('.')[0] for name in sys.modules}"
        " & {'simulator', 'demo', 'starlette', 'uvicorn'}, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "set()"
