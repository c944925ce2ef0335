"""Sizes that keep code readable: a module of at most 500 lines, a function of 60, a folder of 25 modules.

Exceptions are listed here by name with their reason, and nowhere else.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("app", "actors", "tests", "scripts")
MODULE_LINES, MODULE_AIM, FUNCTION_LINES = 500, 300, 60
LONGER_MODULES: dict[str, str] = {}
LONGER_FUNCTIONS: dict[str, str] = {}
FOLDER_FILES = 25
LARGER_FOLDERS = {
    "app/migrations/versions": "one file a change of the schema, in their order",
}


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


def large_folders(root: Path, exceptions: Mapping[str, str]) -> Iterator[str]:
    """A fault for each folder below `app` with too many modules, and for each exception that is needed no more."""
    counts = Counter(str(path.parent.relative_to(root)) for path in (root / "app").rglob("*.py"))
    for name, files in sorted(counts.items()):
        if files > FOLDER_FILES and name not in exceptions:
            yield f"{name}: {files} modules, at most {FOLDER_FILES}"
    for name in exceptions:
        if "migrations" not in name and counts[name] <= FOLDER_FILES:
            yield f"{name}: no longer too large; take it out of LARGER_FOLDERS"


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
    faults += large_folders(ROOT, LARGER_FOLDERS)
    for line in hints:
        print(f"hint  {line}")
    for line in faults:
        print(f"fault {line}")
    print(f"sizes: {len(faults)} faults, {len(hints)} hints")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
