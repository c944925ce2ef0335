"""Places in code and pages that break the rules of writing in CONTRIBUTING.md, found by tokens and trees."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
CODE = ("app", "actors", "tests", "scripts")
PAGES = ("*.md", "docs/**/*.md", "deploy/**/*.md", "tests/**/*.md")
OPENING = re.compile(r"(what|whatever|who|whom|whose|whoever|whether|how)\b", re.IGNORECASE)
BANNED = re.compile(
    r"\b(?:anew|meanwhile|beside|whoever|nobody|somebody|is none|of its own|by itself|in vain"
    r"|mend(?:s|ed|ing|er|ers)?|(?:tell|tells|told|telling) of|stands before|of which|what(?: [\w']+){1,4} is)\b",
    re.IGNORECASE,
)
VAGUE = frozenset({"found", "said", "given", "told", "one", "kept", "wanted"})
# Names of functions that are no verbs.
VAGUE_CALLS = VAGUE | {"shown", "listed"}
OLD_CONSTANT = re.compile(r"_?(?:MOST|LONGEST|LARGEST|FEWEST)_")
# File names that mean the same thing in every package.
SHARED_FILES = frozenset({"__init__", "models", "jobs"})
# Files of one package that share a name since they share an idea.
SAME_IDEA = {("search", "engine"): "each engine implements the one interface of engines/base.py"}
_WORD = re.compile(r"[A-Za-z][A-Za-z'’-]*")
_MARKER = re.compile(r"#\s*(noqa|type:|ruff:|fmt:|pragma|!)")
_FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
_QUOTED = re.compile(r"`[^`\n]*`")
_MESSAGE_KEYWORDS = frozenset({"help", "summary", "description", "message"})


@dataclass(frozen=True)
class Place:
    rule: str
    path: str
    line: int
    text: str


@dataclass
class Survey:
    """Places by rule, and what their numbers are measured against."""

    places: list[Place] = field(default_factory=list)
    docstrings: int = 0
    words: dict[str, int] = field(default_factory=lambda: {"code": 0, "docs": 0, "messages": 0})
    classes: dict[str, list[Place]] = field(default_factory=dict)
    files: dict[tuple[str, str], list[Place]] = field(default_factory=dict)


def survey(root: Path) -> Survey:
    """Look at every module and every page below the root."""
    result = Survey()
    for folder in CODE:
        for path in sorted((root / folder).rglob("*.py")):
            name = path.relative_to(root).as_posix()
            if "migrations/versions" not in name:
                look_at_module(result, name, path.read_text())
    pages = {path for pattern in PAGES for path in root.glob(pattern)}
    for path in sorted(pages):
        look_at_text(result, "docs", path.relative_to(root).as_posix(), page_text(path.read_text()), 1)
    result.places += [place for same in result.classes.values() for place in same if len(same) > 1]
    result.places += [place for same in result.files.values() for place in same if len(same) > 1]
    return result


def look_at_module(result: Survey, name: str, text: str) -> None:
    tree = ast.parse(text, name)
    for node in ast.walk(tree):
        if isinstance(node, Documented):
            _docstring(result, name, node)
    for line, comment in comments(text):
        look_at_text(result, "code", name, comment, line)
    for line, message in messages(tree):
        look_at_text(result, "messages", name, message, line)
    result.places += [Place("names", name, line, binding) for binding, line in vague_names(tree)]
    result.places += [Place("constants", name, line, binding) for binding, line in old_constants(tree)]
    if name.startswith("app/"):
        _public_classes(result, name, tree)
        _file_name(result, name, tree)


def look_at_text(result: Survey, kind: str, name: str, text: str, line: int) -> None:
    """Count the words of a text, and note those that are banned; `kind` is code, docs or messages."""
    result.words[kind] += len(_WORD.findall(text))
    for match in BANNED.finditer(text.replace("\n", " ")):
        at = line + text.count("\n", 0, match.start())
        around = " ".join(text[max(0, match.start() - 40) : match.end() + 40].split())
        result.places.append(Place(f"words-{kind}", name, at, f"{match[0]}: …{around}…"))


def _docstring(result: Survey, name: str, node: Documented) -> None:
    text = ast.get_docstring(node)
    if text is None:
        return
    result.docstrings += 1
    line = node.body[0].lineno
    look_at_text(result, "code", name, text, line)
    if OPENING.match(text):
        result.places.append(Place("openings", name, line, text.splitlines()[0]))


def comments(text: str) -> Iterator[tuple[int, str]]:
    """Comments that people read, each with its line; those for linters are left out."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            words = token.string.partition("  ")[2] if _MARKER.match(token.string) else token.string.lstrip("# ")
            if words:
                yield token.start[0], words


def messages(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Texts of errors that are raised, of `help=` and of descriptions; a computed part is left out."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            for argument in node.exc.args:
                yield from ((argument.lineno, text) for text in _texts(argument))
        elif isinstance(node, ast.Call):
            for keyword in node.keywords:
                if keyword.arg in _MESSAGE_KEYWORDS:
                    yield from ((keyword.value.lineno, text) for text in _texts(keyword.value))


def _texts(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield " ".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))


def page_text(text: str) -> str:
    """A page without its code, each line where it was."""
    text = _FENCE.sub(lambda match: "\n" * match[0].count("\n"), text)
    return _QUOTED.sub("", text)


class _Bindings(ast.NodeVisitor):
    """Names that a scope binds, each once a scope."""

    def __init__(self) -> None:
        self.scopes: list[dict[str, int]] = [{}]

    def _bind(self, name: str | None, line: int) -> None:
        if name is not None:
            self.scopes[-1].setdefault(name, line)

    def _scope(self, node: ast.AST) -> None:
        outer = self.scopes.pop()
        self.scopes.append({})
        self.generic_visit(node)
        self.scopes.append(outer)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._bind(f"{node.name}()", node.lineno)
        self._scope(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.visit_FunctionDef(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._scope(node)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._scope(node)

    def visit_arg(self, node: ast.arg) -> None:
        self._bind(node.arg, node.lineno)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Store):
            self._bind(node.id, node.lineno)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if isinstance(node.ctx, ast.Store):
            self._bind(node.attr, node.lineno)
        self.generic_visit(node)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        self._bind(node.name, node.lineno)
        self.generic_visit(node)

    def visit_MatchAs(self, node: ast.MatchAs) -> None:
        self._bind(node.name, node.lineno)
        self.generic_visit(node)


def bindings(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Every name that is bound with its line, once a scope; functions end in `()`."""
    visitor = _Bindings()
    visitor.visit(tree)
    for scope in visitor.scopes:
        yield from scope.items()


def vague_names(tree: ast.Module) -> list[tuple[str, int]]:
    vague = VAGUE | {f"{name}()" for name in VAGUE_CALLS}
    return [(name, line) for name, line in bindings(tree) if name in vague]


def old_constants(tree: ast.Module) -> list[tuple[str, int]]:
    return [(name, line) for name, line in bindings(tree) if OLD_CONSTANT.match(name)]


def _public_classes(result: Survey, name: str, tree: ast.Module) -> None:
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            result.classes.setdefault(node.name, []).append(Place("classes", name, node.lineno, node.name))


def _file_name(result: Survey, name: str, tree: ast.Module) -> None:
    """Note the file under its name and the package of `app` that it is in."""
    floor, stem = name.split("/")[1], Path(name).stem
    if "/models/" in name:  # the shapes of a module of the same name
        return
    only_imports = all(isinstance(node, ast.Import | ast.ImportFrom | ast.Expr | ast.Assign) for node in tree.body)
    if stem not in SHARED_FILES and (floor, stem) not in SAME_IDEA and not only_imports:
        result.files.setdefault((floor, stem), []).append(Place("files", name, 1, f"{stem}.py in app/{floor}"))
