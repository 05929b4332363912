"""README and docs are true where that can be checked: the links, files, commands, flags, settings,
tables and log lines that they name exist."""

import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from newshead.settings import Settings

PROJECT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    str(path.relative_to(PROJECT)) for path in (*PROJECT.glob("*.md"), *PROJECT.glob("docs/*.md"))
)

# Folders and files that newshead makes when it runs, and those of other projects.
MADE = re.compile(r"(triggers|logs|data)/.*|\.env|\.venv.*|metadata/.*")
# Variables that are no settings of newshead's.
OTHER_VARIABLES = {
    "SOAK_SECONDS": "tests/soak.py",
    "SOAK_SEED": "tests/soak.py",
    **dict.fromkeys(
        ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"), "tests/unit/test_proxies.py"
    ),
}
SOURCES = ["run_system.py", "price_checker.py", "ibkr_client.py", "clickhouse_manager.py"]


def read(page: str) -> str:
    return (PROJECT / page).read_text()


def blocks(page: str) -> Iterator[str]:
    """The lines of the page's code blocks, those that go on joined."""
    for block in re.findall(r"^ *```(?:\w*)\n(.*?)^ *```$", read(page), re.M | re.S):
        yield from re.sub(r"\\\n\s*", "", block).splitlines()


def prose(page: str) -> str:
    return re.sub(r"^ *```.*?^ *```$", "", read(page), flags=re.M | re.S)


def quoted(page: str) -> list[str]:
    """What stands between backticks."""
    return [" ".join(text.split()) for text in re.findall(r"`([^`]+)`", prose(page))]


def pairs(found: dict[str, list[str]]) -> list[tuple[str, str]]:
    return [(page, text) for page, texts in found.items() for text in dict.fromkeys(texts)]


# Links


def anchors(page: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.M)
    texts = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {text.replace(" ", "-") for text in texts}


@pytest.mark.parametrize(
    ("page", "target"), pairs({p: re.findall(r"\]\(([^)\s]+)\)", prose(p)) for p in PAGES})
)
def test_a_link_resolves(page: str, target: str) -> None:
    if target.startswith("https://"):
        return
    path, _, anchor = target.partition("#")
    linked = (PROJECT / page).parent / path if path else PROJECT / page
    assert linked.exists()
    if anchor:
        assert anchor in anchors(str(linked.resolve().relative_to(PROJECT)))


def test_the_readme_links_every_page() -> None:
    for page in PAGES:
        assert page == "README.md" or f"]({page})" in read("README.md"), page


# Files


def files(page: str) -> list[str]:
    """What looks like a path of this repository."""
    return [
        text
        for text in quoted(page)
        if re.fullmatch(r"[\w.-]+(/[\w.-]+)*/?", text)
        and (text.endswith(("/", ".py", ".md", ".toml", ".yaml", ".json", ".service", ".txt")))
        and not MADE.fullmatch(text)
    ]


@pytest.mark.parametrize(("page", "path"), pairs({page: files(page) for page in PAGES}))
def test_a_file_exists(page: str, path: str) -> None:
    places = [PROJECT, (PROJECT / page).parent]
    # In a row about a folder its files go by their names.
    rows = [row for row in prose(page).splitlines() if f"`{path}`" in row and row.startswith("|")]
    folders = [folder for row in rows for folder in re.findall(r"^\| `([\w/]+/)` \|", row)]
    places += [PROJECT / folder for folder in folders]
    if not any((place / path).exists() for place in places):
        # In prose a module may go by its name alone.
        assert "/" not in path
        assert list(PROJECT.glob(f"newshead/**/{path}")) or list(PROJECT.glob(f"benchmarks/{path}"))


# Commands and flags


@cache
def options(command: str) -> frozenset[str]:
    """The flags in the source of a command."""
    return frozenset(re.findall(r'"(--[a-z][a-z-]*)"', (PROJECT / command).read_text()))


COMMANDS = {
    "run_system.py": "run_system.py",
    "price_checker.py": "price_checker.py",
    "testfiles/test_ibkr_connection.py": "testfiles/test_ibkr_connection.py",
    "dashboard": "dashboard/__main__.py",
    "dashboard.notify": "dashboard/notify.py",
    "newshead.replay": "newshead/replay/__main__.py",
    "newshead.results": "newshead/results.py",
    "simulator": "simulator/__main__.py",
    "simulator.news": "simulator/news.py",
    "simulator.ratings": "simulator/ratings.py",
    "simulator.alpaca": "simulator/alpaca.py",
    "simulator.feeds": "simulator/feeds.py",
    "benchmarks": "benchmarks/__main__.py",
}
EVERY_COMMAND = {"--help", "--version"}


def commands(page: str) -> list[str]:
    """The commands that the page shows, without what stands before and behind them."""
    found = []
    for line in (*blocks(page), *quoted(page)):
        text = re.split(r" +#| &$", line)[0]
        text = re.sub(r"^([A-Z_]+=\S+ )+", "", text.strip())
        if re.match(r"(\S*python |make |\w+\.py --)", text):
            found.append(text)
    return found


@pytest.mark.parametrize(("page", "command"), pairs({page: commands(page) for page in PAGES}))
def test_a_command_and_its_flags_exist(page: str, command: str) -> None:
    words = shlex.split(command)
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", read("Makefile"), re.M), page
        return
    if words[0].endswith("python"):
        words = words[1:]
    name, *arguments = words[1:] if words[0] == "-m" else words
    if name in ("-c", "pytest"):
        return
    known = options(COMMANDS[name]) | EVERY_COMMAND
    assert {word for word in arguments if word.startswith("--")} <= known


FLAG_SOURCES = [*COMMANDS.values(), "newshead/process.py"]


@pytest.mark.parametrize(
    ("page", "flag"),
    pairs({p: re.findall(r"(?<![\w-])--[a-z][a-z-]+", " ".join(quoted(p))) for p in PAGES}),
)
def test_a_flag_exists(page: str, flag: str) -> None:
    assert flag in EVERY_COMMAND.union(*map(options, FLAG_SOURCES)), page


def test_the_table_of_flags_is_whole() -> None:
    table = re.findall(r"^\| (`--.*?) \|", read("docs/operations.md"), re.M)
    shown = re.findall(r"--[a-z-]+", " ".join(table))
    defined = re.findall(r'flag\(\s*"(--[a-z-]+)"', read("run_system.py"))
    assert set(shown) == {*defined, "--version"}


def test_the_pre_commit_hook_runs_make_lint() -> None:
    assert "entry: make lint" in read(".pre-commit-config.yaml")


# Settings, constants and tables


@pytest.mark.parametrize(
    ("page", "name"),
    pairs({p: re.findall(r"\b[A-Z]+(?:_[A-Z0-9]+)+\b", " ".join(quoted(p))) for p in PAGES}),
)
def test_a_variable_or_constant_exists(page: str, name: str) -> None:
    if name in Settings.variables():
        return
    if name in OTHER_VARIABLES:
        assert name in read(OTHER_VARIABLES[name]), page
        return
    modules = [*SOURCES, *map(str, (PROJECT / "newshead").rglob("*.py"))]
    assert any(re.search(rf"^{name}\b", read(module), re.M) for module in modules), page


def test_the_page_of_the_database_names_every_table() -> None:
    sources = "".join(path.read_text() for path in PROJECT.glob("newshead/database/*.py"))
    described = r'(?:CREATE TABLE IF NOT EXISTS News\.|= Table\(\s*")(\w+)'
    created = set(re.findall(described, sources))
    table = read("docs/database.md").partition("## Tables")[2].partition("\n## ")[0]
    named = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", table, re.M))))
    assert {name for name in named if not name.endswith("_history")} == created


# Log lines


@cache
def texts() -> str:
    """The texts in newshead's code, what is filled in later as an ellipsis."""
    modules = [*SOURCES, "dashboard/notify.py", "dashboard/services.py"]
    paths = [*(PROJECT / module for module in modules), *PROJECT.glob("newshead/**/*.py")]
    return "\n".join(text for path in paths for text in _texts(path))


def _texts(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
            yield "".join(str(part) for part in parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield re.sub(r"%(?:\.\d)?[a-z]|\{\w+\}", "…", node.value)


LINES = re.findall(r"^\| `(.+?)` \|", read("docs/troubleshooting.md"), re.M)


@pytest.mark.parametrize("line", LINES)
def test_a_line_in_troubleshooting_is_one_that_newshead_logs(line: str) -> None:
    # In the log a code's number precedes its line; an outcome is a text of its own.
    line = re.sub(r"^IBKR code \d+: ", "", line)
    for part in re.split(r"(?<=ended): ", line):
        told = part.strip("… ")
        assert len(told) >= 8
        pattern = ".*".join(re.escape(words) for words in told.split("…"))
        assert re.search(pattern, texts())


def test_each_page_of_docs_begins_with_its_title() -> None:
    for page in PAGES:
        assert re.match(r"# \S", read(page)), page
