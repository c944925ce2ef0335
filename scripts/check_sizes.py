"""Sizes that keep code readable: a module of at most 500 lines, a function of at most 60.

Exceptions are listed here by name with their reason, and nowhere else.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("app", "actors", "tests", "scripts")
MODULE_LINES, MODULE_AIM, FUNCTION_LINES = 500, 300, 60
LONGER_MODULES: dict[str, str] = {}
LONGER_FUNCTIONS: dict[str, str] = {}


def modules() -> Iterator[Path]:
    for folder in FOLDERS:
        yield from sorted((ROOT / folder).rglob("*.py"))


def long_functions(path: Path, tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Name and length of each function over the limit; its decorators do not count."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES:
                yield f"{path.relative_to(ROOT)}:{node.name}", length


def main() -> int:
    faults, hints = [], []
    for path in modules():
        text = path.read_text()
        name, lines = str(path.relative_to(ROOT)), len(text.splitlines())
        generated = "migrations/versions" in name
        if lines > MODULE_LINES and name not in LONGER_MODULES and not generated:
            faults.append(f"{name}: {lines} lines, at most {MODULE_LINES}")
        elif lines > MODULE_AIM and not generated:
            hints.append(f"{name}: {lines} lines, {MODULE_AIM} are better")
        if not generated:
            too_long = [pair for pair in long_functions(path, ast.parse(text)) if pair[0] not in LONGER_FUNCTIONS]
            faults += [f"{name}: {length} lines, at most {FUNCTION_LINES}" for name, length in too_long]
    for line in hints:
        print(f"hint  {line}")
    for line in faults:
        print(f"fault {line}")
    print(f"sizes: {len(faults)} faults, {len(hints)} hints")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
