"""Word, PowerPoint and Excel files of the newer kind, which are zip files of XML."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import openpyxl
from lxml.etree import LxmlError

from app.core.errors import InvalidInput
from app.documents.extract import archives
from app.documents.extract.limits import USUAL, ExtractLimits
from app.documents.extract.office.docx_parser import extract_docx
from app.documents.extract.office.ooxml_parser import Package, alternative_text, chart_text, child, descendants
from app.documents.extract.office.pptx_parser import extract_pptx
from app.documents.extract.pages import Pages

_STRICT = b"http://purl.oclc.org/ooxml/"
_NAMESPACES = (
    (b"http://purl.oclc.org/ooxml/spreadsheetml/main", b"http://schemas.openxmlformats.org/spreadsheetml/2006/main"),
    (
        b"http://purl.oclc.org/ooxml/officeDocument/relationships",
        b"http://schemas.openxmlformats.org/officeDocument/2006/relationships",
    ),
    (b"http://purl.oclc.org/ooxml/drawingml/main", b"http://schemas.openxmlformats.org/drawingml/2006/main"),
    (b"http://purl.oclc.org/ooxml/drawingml/", b"http://schemas.openxmlformats.org/drawingml/2006/"),
)
# Errors that these libraries raise on inconsistent files.
_BROKEN = (LxmlError, ArithmeticError, AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError)


def extract(blob: Path, limits: ExtractLimits = USUAL, *, kind: str) -> Pages:
    """Extract a file; `kind` is docx, pptx or xlsx. Raises InvalidInput."""
    _check(blob)
    try:
        return {"docx": extract_docx, "pptx": extract_pptx, "xlsx": _xlsx}[kind](blob, limits)
    except InvalidInput:
        raise
    except _BROKEN as error:
        raise InvalidInput(f"the {kind} file is broken: {error}", code="broken_document") from error
    except Exception as error:
        # openpyxl and zipfile have errors for a package with missing parts, and they share no parent class.
        if type(error).__module__.partition(".")[0] not in ("openpyxl", "zipfile", "zlib"):
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


def _xlsx(blob: Path, limits: ExtractLimits) -> Pages:
    with archives.open_archive(blob) as archive:
        package = Package(archive)
        extra_texts = _texts_by_sheet(package, Pages(limits))
    with _transitional(blob).open("rb") as file:  # given a path, openpyxl decides by the ending of the name
        book = openpyxl.load_workbook(file, read_only=True, data_only=True, keep_links=False)
        pages = Pages(limits)
        _properties(pages, book.properties)
        for sheet in book.worksheets[: limits.sheets]:
            table = pages.table(sheet.iter_rows(values_only=True))
            pages.add("\n\n".join([f"# {sheet.title}\n\n{table}", *extra_texts.get(sheet.title, ())]))
        if len(book.worksheets) > limits.sheets:
            pages.cut("sheets", limits.sheets)
        for sheet in book.chartsheets[: limits.sheets]:
            pages.add("\n\n".join([f"# {sheet.title}", *extra_texts.get(sheet.title, ())]))
        book.close()
        return pages


def _transitional(blob: Path) -> Path:
    """Return the file, or a copy of a "Strict" one with the namespaces that openpyxl reads."""
    with archives.open_archive(blob) as archive:
        relations = archives.read_member(archive, "_rels/.rels") or b""
        if _STRICT not in relations:
            return blob
        copy = blob.with_name(f"{blob.name}.transitional")
        with zipfile.ZipFile(copy, "w", zipfile.ZIP_DEFLATED) as target:
            for member in archive.infolist():
                data = archives.read_member(archive, member.filename) or b""
                for strict, usual in _NAMESPACES if member.filename.endswith((".xml", ".rels")) else ():
                    data = data.replace(strict, usual)
                target.writestr(member.filename, data)
        return copy


def _texts_by_sheet(package: Package, pages: Pages) -> dict[str, list[str]]:
    """Return by sheet the texts outside of its cells: text boxes, charts, alternative texts, comments."""
    main = package.main()
    sheets = child(package.read(main), "sheets")
    extra_texts: dict[str, list[str]] = {}
    for sheet in sheets if sheets is not None else ():
        key = next((value for name, value in sheet.attrib.items() if name.endswith("}id")), "")
        relationship = package.relationships(main).get(key)
        if relationship is None:
            continue
        texts = extra_texts.setdefault(sheet.get("name", ""), [])
        for part, drawing in package.related(relationship.part, "drawing"):
            texts += (
                "".join(item.text or "" for item in descendants(body, "t")) for body in descendants(drawing, "txBody")
            )
            texts += (alternative_text(item) for item in descendants(drawing, "cNvPr"))
            texts += (chart_text(pages, root) for _, root in package.related(part, "chart", "chartEx"))
        for _, comments in package.related(relationship.part, "comments", "threadedComment"):
            for comment in descendants(comments, "comment", "threadedComment"):
                texts.append("".join(item.text or "" for item in descendants(comment, "t", "text")))
        extra_texts[sheet.get("name", "")] = [text for text in dict.fromkeys(texts) if text.strip()]
    return extra_texts
