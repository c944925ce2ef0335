"""Word, PowerPoint and Excel files of the newer kind, which are zip files of XML."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docx
import openpyxl
import pptx
from docx.document import Document
from docx.table import Table
from docx.text.paragraph import Paragraph
from lxml.etree import LxmlError

from app.core.errors import InvalidInput
from app.documents.extract import archives
from app.documents.extract.limits import USUAL, ExtractLimits
from app.documents.extract.pages import Pages

# Errors that these libraries raise on inconsistent files.
_BROKEN = (LxmlError, ArithmeticError, AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError)


def extract(blob: Path, limits: ExtractLimits = USUAL, *, kind: str) -> Pages:
    """Extract a file; `kind` is docx, pptx or xlsx. Raises InvalidInput."""
    _check(blob)
    try:
        return {"docx": _docx, "pptx": _pptx, "xlsx": _xlsx}[kind](blob, limits)
    except InvalidInput:
        raise
    except _BROKEN as error:
        raise InvalidInput(f"the {kind} file is broken: {error}", code="broken_document") from error
    except Exception as error:
        # Each library has errors for a package with missing parts, and they share no parent class.
        if type(error).__module__.partition(".")[0] not in ("docx", "pptx", "openpyxl", "zipfile", "zlib"):
            raise
        raise InvalidInput(f"the {kind} file is broken: {error}", code="broken_document") from error


def _check(blob: Path) -> None:
    """Refuse bombs: a part that declares entities is refused before a library parses it."""
    with archives.open_archive(blob) as archive:
        for member in archive.infolist():
            if not member.filename.endswith((".xml", ".rels")) or member.file_size == 0:
                continue
            head = archives.read_beginning(archive, member)
            if b"<!DOCTYPE" in head or b"<!ENTITY" in head:
                raise InvalidInput("the file defines XML entities, which can expand without bound", code="archive_bomb")


def _properties(pages: Pages, properties: Any) -> None:
    pages.title = properties.title or None
    pages.language = getattr(properties, "language", None) or None
    pages.metadata = {"author": getattr(properties, "author", None) or getattr(properties, "creator", None)}
    pages.metadata |= {name: getattr(properties, name, None) or None for name in ("subject", "keywords")}


def _docx(blob: Path, limits: ExtractLimits) -> Pages:
    document = docx.Document(str(blob))
    pages = Pages(limits)
    _properties(pages, document.core_properties)
    blocks = [
        _paragraph(block) if isinstance(block, Paragraph) else _table(pages, block) for block in _blocks(document)
    ]
    pages.add("\n\n".join(block for block in blocks if block))
    return pages


def _blocks(document: Document) -> Iterator[Paragraph | Table]:
    return document.iter_inner_content()


def _paragraph(paragraph: Paragraph) -> str:
    text = paragraph.text.strip()
    style = (paragraph.style.name or "") if paragraph.style is not None else ""
    if not text:
        return ""
    if style == "Title":
        return f"# {text}"
    if style.startswith("Heading "):
        level = style.removeprefix("Heading ")
        return f"{'#' * min(int(level), 6) if level.isdecimal() else '##'} {text}"
    return f"- {text}" if style.startswith("List") else text


def _table(pages: Pages, table: Table) -> str:
    return pages.table([cell.text for cell in row.cells] for row in table.rows)


def _pptx(blob: Path, limits: ExtractLimits) -> Pages:
    deck = pptx.Presentation(str(blob))
    pages = Pages(limits)
    _properties(pages, deck.core_properties)
    for slide in deck.slides:
        heading = slide.shapes.title.text_frame.text.strip() if slide.shapes.title is not None else ""
        parts = [f"# {' '.join(heading.split())}"] if heading else []
        parts += [text for shape in slide.shapes for text in _shape(pages, shape, slide.shapes.title)]
        if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
            parts.append(slide.notes_slide.notes_text_frame.text)
        pages.add("\n\n".join(part for part in parts if part.strip()))
    return pages


def _shape(pages: Pages, shape: Any, title: Any) -> Iterator[str]:
    if title is not None and shape.shape_id == title.shape_id:
        return
    for inner in getattr(shape, "shapes", ()):  # a group
        yield from _shape(pages, inner, title)
    if shape.has_text_frame:
        yield "\n".join(paragraph.text for paragraph in shape.text_frame.paragraphs)
    if getattr(shape, "has_table", False):
        yield pages.table([cell.text for cell in row.cells] for row in shape.table.rows)


def _xlsx(blob: Path, limits: ExtractLimits) -> Pages:
    with blob.open("rb") as file:  # given a path, openpyxl decides by the ending of the name
        book = openpyxl.load_workbook(file, read_only=True, data_only=True)
        pages = Pages(limits)
        _properties(pages, book.properties)
        for sheet in book.worksheets[: limits.sheets]:
            pages.add(f"# {sheet.title}\n\n{pages.table(sheet.iter_rows(values_only=True))}")
        if len(book.worksheets) > limits.sheets:
            pages.cut("sheets", limits.sheets)
        book.close()
        return pages
