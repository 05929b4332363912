"""Prints the largest classes of the product: lines, methods and attributes set on `self`.

`python tests/class_sizes.py [N]`, by default the twelve with the most lines.
"""

import ast
import sys
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).resolve().parent.parent
ELSEWHERE = {"tests", "benchmarks", ".venv", ".venv-old-client", ".venv-new-client"}


class Size(NamedTuple):
    """A class's size."""

    lines: int
    methods: int
    attributes: int
    name: str


def size(node: ast.ClassDef, file: Path) -> Size:
    """Return a class's size; class variables are no attributes."""
    attributes = {
        each.attr
        for each in ast.walk(node)
        if isinstance(each, ast.Attribute)
        and isinstance(each.ctx, ast.Store)
        and isinstance(each.value, ast.Name)
        and each.value.id == "self"
    }
    methods = sum(isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) for each in node.body)
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    return Size(lines, methods, len(attributes), f"{file.relative_to(PROJECT)} {node.name}")


def main() -> None:
    """Print the table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 12
    files = [
        file
        for file in PROJECT.rglob("*.py")
        if file.relative_to(PROJECT).parts[0] not in ELSEWHERE
    ]
    sizes = [
        size(node, file)
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    ]
    print("lines  methods  attributes  class")
    for each in sorted(sizes, reverse=True)[:count]:
        print(f"{each.lines:5}  {each.methods:7}  {each.attributes:10}  {each.name}")


if __name__ == "__main__":
    main()
