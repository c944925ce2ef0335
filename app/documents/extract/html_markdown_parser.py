"""Write a page as Markdown: headings, paragraphs, lists with their numbers, tables, code with its lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from selectolax.lexbor import LexborNode

from app.documents.extract.pages import Pages

_BLOCKS = {
    "address", "article", "aside", "blockquote", "body", "caption", "center", "dd", "details", "dialog", "div", "dl",
    "dt", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hgroup",
    "hr", "legend", "li", "main", "menu", "nav", "ol", "optgroup", "option", "p", "pre", "search", "section", "summary",
    "table", "tbody", "td", "tfoot", "th", "thead", "tr", "ul",
}  # fmt: skip
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_LISTS = ("ul", "ol", "menu")
# Elements that a cell of a table of data does not contain; a table with one of them arranges the page.
_LAYOUT = "table, h1, h2, h3, h4, h5, h6, pre, article, section, form"
_LANGUAGE = re.compile(
    r"(?:^|\s)(?:(?:language|lang|highlight-source|highlight)-|brush:\s*)(?!default|none|text\b|plain)([\w+#.-]{1,30})",
    re.I,
)
_GUTTER = re.compile(
    r"(?:^|[\s_-])(?:gutter|linenos?|lineno|line-?numbers?(?:-rows)?|copy(?:-?btn|-?button)?|blob-num)(?:$|[\s_-])",
    re.IGNORECASE,
)
# A table of more columns than this may repeat cells by colspan without bound.
MAX_SPAN = 100


@dataclass(slots=True)
class _List:
    """An open list; `number` is that of the next item, None without numbers."""

    number: int | None
    step: int = 1


@dataclass(slots=True)
class _Output:
    """Blocks of Markdown; `line` is the text of the block under way."""

    blocks: list[str] = field(default_factory=list)
    line: list[str] = field(default_factory=list)
    lists: list[_List] = field(default_factory=list)
    # The indent of each open item, and the mark that its first line will carry.
    indents: list[str] = field(default_factory=list)
    mark: str | None = None
    heading: int = 0
    quotes: int = 0
    is_tight: bool = False

    def end_block(self) -> None:
        text = " ".join("".join(self.line).split())
        self.line.clear()
        if text:
            self.add(f"{'#' * self.heading} {text}" if self.heading else text)

    def add(self, text: str) -> None:
        """Add a block, below the mark of its list item and within its quotes."""
        mark, indent = self.mark, "".join(self.indents)
        if mark is not None:
            first, self.mark = "".join(self.indents[:-1]) + mark, None
        else:
            first = indent
        quote = "> " * self.quotes
        lines = text.split("\n")
        block = "\n".join(
            (f"{quote}{first if number == 0 else indent}{line}" if line else quote).rstrip()
            for number, line in enumerate(lines)
        )
        if mark is not None and self.is_tight and self.blocks:
            self.blocks[-1] += f"\n{block}"
        else:
            self.blocks.append(block)
        self.is_tight = bool(self.lists)


def write_markdown(node: LexborNode, pages: Pages | None = None) -> str:
    """Return the element's text as Markdown; `pages` bounds its tables and notes what they leave out."""
    pages = pages or Pages()
    output = _Output()
    stack: list[tuple[LexborNode, bool]] = [(node, False)]
    while stack:  # not recursive: pages nest deeper than Python's stack
        current, is_end = stack.pop()
        tag = current.tag or ""
        if is_end:
            _close(current, tag, output)
        elif tag == "-text":
            output.line.append(current.text_content or "")
        elif _is_leaf(current, tag, output, pages):
            continue
        elif not tag.startswith(("-", "!")):
            _open(current, tag, output)
            stack.append((current, True))
            stack.extend((child, False) for child in reversed(list(current.iter(include_text=True))))
    output.end_block()
    return "\n\n".join(output.blocks)


def _is_leaf(node: LexborNode, tag: str, output: _Output, pages: Pages) -> bool:
    """Write an element that is written as a whole; return False for any other."""
    if tag in ("pre", "code", "table") and (lines := _code_of(node, tag)) is not None:
        output.end_block()
        if lines:
            output.add(_fenced(lines, _language(node)))
    elif tag == "code":
        output.line.append(_inline_code(node))
    elif tag == "table" and _is_data(node):
        output.end_block()
        for text in (*(_inline(caption) for caption in node.css("caption")), pages.table(_rows(node))):
            if text:
                output.add(text)
    elif tag == "math":
        output.line.append(f" {_math(node)} ")
    else:
        return _is_gutter(node)
    return True


def _open(node: LexborNode, tag: str, output: _Output) -> None:
    if tag == "br":
        output.line.append(" ")
    elif tag == "img":
        output.line.append(f" {_alternative(node)} ")
    if tag not in _BLOCKS:
        return
    output.end_block()
    if tag in _HEADINGS:
        output.heading = _HEADINGS[tag]
    elif tag in _LISTS:
        start = (node.attributes.get("start") or "1").strip()
        number = int(start) if start.lstrip("-").isdecimal() and len(start) < 9 else 1
        is_reversed = "reversed" in node.attributes
        output.lists.append(_List(number if tag == "ol" else None, -1 if is_reversed else 1))
    elif tag == "li":
        _open_item(node, output)
    elif tag == "blockquote":
        output.quotes += 1


def _open_item(node: LexborNode, output: _Output) -> None:
    current = output.lists[-1] if output.lists else _List(None)
    value = (node.attributes.get("value") or "").strip()
    if current.number is not None and value.isdecimal() and len(value) < 9:
        current.number = int(value)
    output.mark = "- " if current.number is None else f"{current.number}. "
    output.indents.append(" " * len(output.mark))
    if current.number is not None:
        current.number += current.step


def _close(node: LexborNode, tag: str, output: _Output) -> None:
    if tag not in _BLOCKS:
        return
    output.end_block()
    if tag in _HEADINGS:
        output.heading = 0
    elif tag in _LISTS and output.lists:
        output.lists.pop()
        output.is_tight = bool(output.lists)
    elif tag == "li" and output.indents:
        output.indents.pop()
        output.mark = None
    elif tag == "blockquote":
        output.quotes = max(0, output.quotes - 1)


def _code_of(node: LexborNode, tag: str) -> str | None:
    """Return the lines of a block of code; None for any other element."""
    if tag == "table":
        cells = node.css("td.blob-code, td.code-line, td.line-content")
        return "\n".join(_raw(cell) for cell in cells).strip("\n") if cells else None
    text = _raw(node).strip("\n").rstrip()
    if tag == "code" and "\n" not in text:
        return None
    lines = node.css("span.line, [data-line], .code-line") if "\n" not in text else []
    return "\n".join(_raw(line) for line in lines) if len(lines) > 1 else text


def _raw(node: LexborNode) -> str:
    """Return the text with its blanks and line ends, without numbers of lines."""
    parts: list[str] = []
    stack: list[tuple[LexborNode, bool]] = [(node, False)]
    while stack:
        current, is_end = stack.pop()
        tag = current.tag or ""
        if is_end or tag == "br":
            if not parts or not parts[-1].endswith("\n") or tag == "br":
                parts.append("\n")
        elif tag == "-text":
            parts.append(current.text_content or "")
        elif not tag.startswith(("-", "!")) and not _is_gutter(current):
            if tag in _BLOCKS and tag != "pre" and current.mem_id != node.mem_id:
                stack.append((current, True))
            stack.extend((child, False) for child in reversed(list(current.iter(include_text=True))))
    return "".join(parts)


def _is_gutter(node: LexborNode) -> bool:
    """Return True for the numbers of lines that stand next to code."""
    attributes = node.attributes
    if "data-line-number" in attributes and not node.text(strip=True):
        return True
    name = attributes.get("class")
    return bool(name and _GUTTER.search(name) and not re.search(r"[^\W\d_]", node.text()))


def _fenced(code: str, language: str) -> str:
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", code)), default=0))
    return f"{fence}{language}\n{code}\n{fence}"


def _language(node: LexborNode) -> str:
    """Return the language that the class of the code, of its wrapper or of its child names."""
    child, parent = node.css_first("code"), node.parent
    for element in (child, node, parent, parent.parent if parent is not None else None):
        if element is not None and (match := _LANGUAGE.search(element.attributes.get("class") or "")):
            return match.group(1).lower()
    return ""


def _inline_code(node: LexborNode) -> str:
    text = " ".join(node.text().split())
    return f"`{text}`" if text and "`" not in text else text


def _alternative(node: LexborNode) -> str:
    """Return the text that stands for a picture."""
    return " ".join((node.attributes.get("alt") or "").split())


def _math(node: LexborNode) -> str:
    """Return a formula as its source in TeX, else as its text."""
    for annotation in node.css("annotation"):
        if "tex" in (annotation.attributes.get("encoding") or ""):
            return " ".join(annotation.text().split())
    return " ".join((node.attributes.get("alttext") or node.text(separator=" ")).split())


def _is_data(node: LexborNode) -> bool:
    """Return True for a table of data; any other arranges parts of the page."""
    if node.attributes.get("role") in ("presentation", "none"):
        return False
    if any(inner.mem_id != node.mem_id for inner in node.css(_LAYOUT)):
        return False
    widths = [sum(1 for _ in _cells(row)) for row in node.css("tr")]
    return max(widths, default=0) > 1


def _cells(row: LexborNode) -> Iterator[LexborNode]:
    return (cell for cell in row.iter() if cell.tag in ("td", "th"))


def _rows(table: LexborNode) -> Iterator[list[str]]:
    """Yield the rows; a cell over several rows is repeated in each, one over several columns leaves blanks."""
    pending: dict[int, tuple[int, str]] = {}
    for row in table.css("tr"):
        cells: list[str] = []
        for cell in _cells(row):
            _fill(cells, pending)
            text, height = _inline(cell), _span(cell, "rowspan")
            for column in range(_span(cell, "colspan")):
                if height > 1:
                    pending[len(cells)] = (height - 1, "" if column else text)
                cells.append("" if column else text)
        _fill(cells, pending)
        yield cells


def _fill(cells: list[str], pending: dict[int, tuple[int, str]]) -> None:
    """Append the cells that reach down from rows above."""
    while (cell := pending.pop(len(cells), None)) is not None:
        height, text = cell
        if height > 1:
            pending[len(cells)] = (height - 1, text)
        cells.append(text)


def _span(cell: LexborNode, name: str) -> int:
    value = (cell.attributes.get(name) or "1").strip()
    return min(max(int(value), 1), MAX_SPAN) if value.isdecimal() and len(value) < 6 else 1


def _inline(node: LexborNode) -> str:
    """Return the text of a cell in one line."""
    parts: list[str] = []
    stack: list[LexborNode] = [node]
    while stack:
        current = stack.pop()
        tag = current.tag or ""
        if tag == "-text":
            parts.append(current.text_content or "")
        elif tag == "img":
            parts.append(f" {_alternative(current)} ")
        elif tag == "code":
            parts.append(_inline_code(current))
        elif tag == "math":
            parts.append(f" {_math(current)} ")
        elif not tag.startswith(("-", "!")):
            if tag in _BLOCKS or tag == "br":
                parts.append(" ")
            stack.extend(reversed(list(current.iter(include_text=True))))
    return " ".join("".join(parts).split())
