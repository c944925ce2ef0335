"""The result of every extraction: one Markdown text, and the positions of its pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from app.core.errors import InvalidInput
from app.documents.extract.limits import USUAL, ExtractLimits
from app.documents.text import clean, clean_line

# Tables are cut into parts of this many rows, each with the header, so that every chunk names its columns.
ROWS_A_TABLE = 40


class Pages:
    """Collects pages; `text` joins them with blank lines."""

    def __init__(self, limits: ExtractLimits = USUAL) -> None:
        self.limits = limits
        self._parts: list[str] = []
        self._length = 0
        self.spans: list[dict[str, int]] = []
        self.title: str | None = None
        self.language: str | None = None
        self.description: str | None = None
        self.metadata: dict[str, Any] = {}
        self._truncated: dict[str, int] = {}
        self.attachments: list[dict[str, str]] = []
        self.ocr = False
        # True if a picture in the file was not read because tesseract is not installed.
        self.needs_ocr = False

    def cut(self, what: str, limit: int) -> None:
        """Note that only `limit` items of this kind were read, so that callers know that the text is incomplete."""
        self._truncated[what] = limit

    def table(self, rows: Iterable[Sequence[Any]]) -> str:
        """Return rows as Markdown tables, the first row as header; blank rows are left out.

        Raises InvalidInput for a text above the limit.
        """
        limits = self.limits
        lines: list[list[str]] = []
        for row in rows:
            line = [_cell(value) for value in row[: limits.columns]]
            while line and not line[-1]:
                line.pop()
            if len(row) > limits.columns and any(_cell(value) for value in row[limits.columns :]):
                self.cut("columns", limits.columns)
            if not line:
                continue
            if len(lines) == limits.rows:
                self.cut("rows", limits.rows)
                break
            lines.append(line)
        return _tables(lines, limits.characters)

    def add(self, text: str, number: int | None = None) -> None:
        """Add a page; `number` defaults to the next one. Raises InvalidInput for a text above the limit."""
        cleaned = clean(text)
        if self._length + len(cleaned) > self.limits.characters:
            raise _too_long(self.limits.characters)
        if cleaned and self._length:
            self._parts.append("\n\n")
            self._length += 2
        start = self._length
        self._parts.append(cleaned)
        self._length += len(cleaned)
        self.spans.append({"number": number or len(self.spans) + 1, "start": start, "end": self._length})

    @property
    def text(self) -> str:
        return "".join(self._parts)

    def about(self) -> dict[str, Any]:
        """Return the result of extract_file, without the text."""
        if not self.text:
            self.metadata["no_text"] = "ocr_missing" if self.needs_ocr else "empty"
        if self.needs_ocr:
            self.metadata["ocr_missing"] = True
        cut = [{"what": what, "limit": limit} for what, limit in self._truncated.items()]
        return {
            "title": clean_line(self.title),
            "description": clean_line(self.description, 4000),
            "language": clean_line(self.language, 35),
            "metadata": {
                key: value for key, value in (self.metadata | {"truncated": cut}).items() if value not in (None, "", [])
            },
            "pages": self.spans,
            "attachments": self.attachments,
            "ocr": self.ocr,
        }


def _tables(lines: Sequence[Sequence[str]], max_characters: int) -> str:
    """Return tables of at most ROWS_A_TABLE rows, each below the header; a row may be shorter, as Markdown allows."""
    if not lines:
        return ""
    header, body = lines[0], lines[1:]
    head = "\n".join(_row(line) for line in (header, ["---"] * max(map(len, lines))))
    parts, length = [], 0
    for at in range(0, max(1, len(body)), ROWS_A_TABLE):
        parts.append("\n".join([head, *(_row(line) for line in body[at : at + ROWS_A_TABLE])]))
        length += len(parts[-1])
        if length > max_characters:
            raise _too_long(max_characters)
    return "\n\n".join(parts)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _too_long(limit: int) -> InvalidInput:
    return InvalidInput(f"the document has more than {limit:,} characters", code="document_size")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    return " ".join(str(value).split()).replace("|", "\\|")
