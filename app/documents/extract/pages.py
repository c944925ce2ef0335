"""What every format becomes: one text in Markdown, and where its pages lie in it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from app.core.errors import InvalidInput
from app.documents.text import clean, clean_line

MOST_CHARACTERS = 50_000_000
# Tables are cut into pieces of so many rows, each with the header again: a chunk then still says what its columns are.
ROWS_A_TABLE = 40


class Pages:
    """Collects pages; `text` is them all, joined by blank lines."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._length = 0
        self.spans: list[dict[str, int]] = []
        self.title: str | None = None
        self.language: str | None = None
        self.metadata: dict[str, Any] = {}
        self.attachments: list[dict[str, str]] = []
        self.ocr = False

    def add(self, text: str, number: int | None = None) -> None:
        """A page; `number` is its own, else the next. Raises InvalidInput for more text than anybody reads."""
        cleaned = clean(text)
        if self._length + len(cleaned) > MOST_CHARACTERS:
            raise InvalidInput(f"the document has more than {MOST_CHARACTERS:,} characters", code="document_size")
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
        """What extract_file returns, without the text."""
        return {
            "title": clean_line(self.title),
            "description": None,
            "language": clean_line(self.language, 35),
            "metadata": {key: value for key, value in self.metadata.items() if value not in (None, "", [])},
            "pages": self.spans,
            "attachments": self.attachments,
            "ocr": self.ocr,
        }


def table(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as Markdown tables, the first as their header; blank rows are left out."""
    lines = [[_cell(value) for value in row] for row in rows]
    lines = [line for line in lines if any(line)]
    if not lines:
        return ""
    width = max(len(line) - next((n for n, cell in enumerate(reversed(line)) if cell), 0) for line in lines)
    lines = [(line + [""] * width)[:width] for line in lines]
    header, body = lines[0], lines[1:]
    parts = [body[at : at + ROWS_A_TABLE] for at in range(0, len(body), ROWS_A_TABLE)] or [[]]
    rule = ["---"] * width
    return "\n\n".join("\n".join("| " + " | ".join(line) + " |" for line in (header, rule, *part)) for part in parts)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    return " ".join(str(value).split()).replace("|", "\\|")
