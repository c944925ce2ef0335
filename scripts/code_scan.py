"""Facts that the source says and no running program lists: error codes, log events, Redis keys, variables."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

PACKAGES = ("app", "actors")
LOG_LEVELS = ("debug", "info", "warning", "error", "exception", "critical")
_REDIS_KEY = re.compile(r"mr:[a-z]")
# Codes that SQL itself writes.
_SQL_CODE = re.compile(r"\berror_code = CASE [^']*(?:THEN|ELSE) '(\w+)'")
_VARIABLE = re.compile(r"MILLRACE_[A-Z0-9_]+")


@dataclass(frozen=True, order=True)
class CodeUse:
    """An error code, the class it is raised with, and the HTTP status where the call itself has one."""

    code: str
    raised_as: str
    status: int | None
    path: str
    line: int


@dataclass(frozen=True, order=True)
class LogCall:
    event: str
    level: str
    module: str
    line: int


@lru_cache(maxsize=4)
def modules(root: Path) -> dict[str, ast.Module]:
    """The tree of every module below `app` and `actors`, by its path; migrations are left out."""
    trees = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            name = path.relative_to(root).as_posix()
            if "migrations/versions" not in name:
                trees[name] = ast.parse(path.read_text(), name)
    return trees


def text_of(node: ast.expr | None) -> list[str]:
    """The texts an expression may have; a part that is computed is `*`."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.JoinedStr):
        parts = [str(part.value) if isinstance(part, ast.Constant) else "*" for part in node.values]
        return ["".join(parts)]
    if isinstance(node, ast.IfExp):
        return text_of(node.body) + text_of(node.orelse)
    return []


def string_constants(tree: ast.Module) -> dict[str, str]:
    """Constants of a module that are plain texts, by name."""
    constants: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            constants |= {target.id: node.value.value for target in node.targets if isinstance(target, ast.Name)}
    return constants


def called(node: ast.Call) -> str:
    """The last part of the name that is called."""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def error_codes(root: Path) -> list[CodeUse]:
    """Every code that the source gives to an error, an answer or the row of a failed job."""
    constants: dict[str, str] = {}
    for tree in modules(root).values():
        constants |= string_constants(tree)
    uses = []
    for path, tree in modules(root).items():
        owners = {
            id(inner): node.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef)
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            for code, raised_as, status in _codes_of(node, owners.get(id(node), ""), constants):
                uses.append(CodeUse(code, raised_as, status, path, getattr(node, "lineno", 0)))
    return sorted(set(uses), key=lambda use: (use.code, use.path, use.line))


def _codes_of(node: ast.AST, owner: str, constants: dict[str, str]) -> Iterator[tuple[str, str, int | None]]:
    """Code, class and status of one node of the tree; `owner` is the class around it."""
    if isinstance(node, ast.Call):
        yield from _codes_of_call(node, owner, constants)
    elif isinstance(node, ast.Assign) and any(isinstance(target, ast.Name) for target in node.targets):
        names = {target.id for target in node.targets if isinstance(target, ast.Name)}
        if "code" in names and not _is_other_word(node.value):
            yield from ((code, owner, None) for code in text_of(node.value))
        elif "CODES" in names and isinstance(node.value, ast.Dict):
            for status, value in zip(node.value.keys, node.value.values, strict=True):
                number = status.value if isinstance(status, ast.Constant) else None
                if isinstance(number, int):
                    yield from ((code, "problem", number) for code in _named(value, constants))
    elif isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant) and key.value == "error_code":
                yield from ((code, "", None) for code in text_of(value))
    elif isinstance(node, ast.JoinedStr):
        yield from ((code, "", None) for code in _SQL_CODE.findall(" ".join(text_of(node))))


def _is_other_word(node: ast.expr) -> bool:
    """Return True for a choice between two texts: that is a local variable, not the code of an error."""
    return isinstance(node, ast.IfExp) and not isinstance(node.body, ast.Attribute)


def _codes_of_call(node: ast.Call, owner: str, constants: dict[str, str]) -> Iterator[tuple[str, str, int | None]]:
    numbers = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, int)]
    status = numbers[0] if called(node) == "problem" and numbers else None
    raised_as = owner if called(node) == "__init__" else called(node)
    for keyword in node.keywords:
        if keyword.arg in ("code", "error_code"):
            yield from ((code, raised_as, status) for code in _named(keyword.value, constants))


def _named(node: ast.expr, constants: dict[str, str]) -> list[str]:
    if isinstance(node, ast.Name):
        return [constants[node.id]] if node.id in constants else []
    return text_of(node)


def log_calls(root: Path) -> list[LogCall]:
    """Every line that `log.info` and its like write, by the name of its event."""
    calls = []
    for path, tree in modules(root).items():
        module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or not node.args:
                continue
            owner = node.func.value
            is_log = isinstance(owner, ast.Name) and owner.id in ("log", "_log", "logger")
            if is_log and node.func.attr in LOG_LEVELS:
                calls += [LogCall(event, node.func.attr, module, node.lineno) for event in text_of(node.args[0])]
    return sorted(calls)


def redis_keys(root: Path) -> list[str]:
    """Every text of the source, Lua included, that begins as a key or a channel of Redis does."""
    keys = set()
    for tree in modules(root).values():
        keys |= {text for text in _texts(tree) if _REDIS_KEY.match(text) and " " not in text}
    for path in (root / "app").rglob("*.lua"):
        keys |= set(re.findall(r"mr:[a-z:]+", path.read_text()))
    return sorted(keys)


def redis_table(root: Path) -> list[str]:
    """The rows on keys of the docstring of core/redis.py."""
    docstring = ast.get_docstring(modules(root)["app/core/redis.py"]) or ""
    return [re.sub(r"\s{2,}", "  ", line) for line in docstring.splitlines() if _REDIS_KEY.match(line)]


def variables(root: Path) -> list[str]:
    """Every environment variable that the source names."""
    return sorted(
        {name for tree in modules(root).values() for text in _texts(tree) for name in _VARIABLE.findall(text)}
    )


def _texts(tree: ast.Module) -> Iterator[str]:
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield from text_of(node)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value
