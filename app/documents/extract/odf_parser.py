"""OpenDocument texts, sheets and slides (ODT, ODS, ODP): their XML is read directly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lxml import etree

from app.core.errors import InvalidInput
from app.documents.extract import archives
from app.documents.extract.limits import USUAL, ExtractLimits
from app.documents.extract.pages import Pages
from app.documents.extract.xml_parser import parse_xml

_NS = {
    "office": "urn:oasis:names:tc:opendocument:xmlns:office:1.0",
    "text": "urn:oasis:names:tc:opendocument:xmlns:text:1.0",
    "table": "urn:oasis:names:tc:opendocument:xmlns:table:1.0",
    "draw": "urn:oasis:names:tc:opendocument:xmlns:drawing:1.0",
    "dc": "http://purl.org/dc/elements/1.1/",
    "meta": "urn:oasis:names:tc:opendocument:xmlns:meta:1.0",
}
_TEXT, _TABLE, _DRAW = (f"{{{_NS[name]}}}" for name in ("text", "table", "draw"))
# A sheet repeats its blank cells up to a million times.
MAX_REPEATED = 100


def extract(blob: Path, limits: ExtractLimits = USUAL) -> Pages:
    with archives.open_archive(blob) as archive:
        content, meta = archives.read_member(archive, "content.xml"), archives.read_member(archive, "meta.xml")
    if content is None:
        raise InvalidInput("the file is broken: it has no content.xml", code="broken_document")
    body = parse_xml(content).find(".//office:body", _NS)
    pages = Pages(limits)
    if meta:
        _describe(pages, parse_xml(meta))
    for part in body if body is not None else ():
        kind = etree.QName(part).localname
        if kind == "spreadsheet":
            for sheet in part.findall("table:table", _NS):
                pages.add(f"# {sheet.get(_TABLE + 'name', '')}\n\n{_table(pages, sheet)}")
        elif kind == "presentation":
            for slide in part.findall("draw:page", _NS):
                pages.add(_flow(pages, slide))
        else:
            pages.add(_flow(pages, part))
    return pages


def _describe(pages: Pages, meta: etree._Element) -> None:
    pages.title = meta.findtext(".//dc:title", None, _NS)
    pages.language = meta.findtext(".//dc:language", None, _NS)
    author = meta.findtext(".//meta:initial-creator", None, _NS) or meta.findtext(".//dc:creator", None, _NS)
    pages.metadata = {"author": author, "subject": meta.findtext(".//dc:subject", None, _NS)}


def _flow(pages: Pages, element: etree._Element) -> str:
    """Return headings, paragraphs, lists and tables in their order."""
    parts: list[str] = []
    for child in element:
        if child.tag == _TEXT + "h":
            level = child.get(_TEXT + "outline-level", "1")
            parts.append(f"{'#' * min(int(level), 6) if level.isdecimal() else '#'} {_text_of(child)}")
        elif child.tag == _TEXT + "p":
            parts.append(_text_of(child))
        elif child.tag == _TEXT + "list":
            items = [" ".join(_flow(pages, item).split()) for item in child.findall("text:list-item", _NS)]
            parts.append("\n".join(f"- {item}" for item in items if item))
        elif child.tag == _TABLE + "table":
            parts.append(_table(pages, child))
        elif isinstance(child.tag, str):
            parts.append(_flow(pages, child))
    return "\n\n".join(part for part in parts if part.strip())


def _text_of(element: etree._Element) -> str:
    """Return all text of a paragraph, with its tabs, breaks and runs of blanks."""
    text = [element.text or ""]
    for child in element:
        if child.tag in (_TEXT + "tab", _TEXT + "s"):
            text.append(" ")
        elif child.tag == _TEXT + "line-break":
            text.append("\n")
        elif child.tag not in (_TEXT + "note", _TEXT + "tracked-changes") and isinstance(child.tag, str):
            text.append(_text_of(child))
        text.append(child.tail or "")
    return "".join(text).strip() if element.tag in (_TEXT + "p", _TEXT + "h") else "".join(text)


def _table(pages: Pages, element: etree._Element) -> str:
    return pages.table(_rows(element))


def _rows(element: etree._Element) -> Iterator[list[str]]:
    for row in element.iter(_TABLE + "table-row"):
        cells: list[str] = []
        for cell in row:
            if cell.tag not in (_TABLE + "table-cell", _TABLE + "covered-table-cell"):
                continue
            text = " ".join(_text_of(part) for part in cell.iter(_TEXT + "p"))
            repeated = cell.get(_TABLE + "number-columns-repeated", "1")
            times = min(int(repeated), MAX_REPEATED) if repeated.isdecimal() else 1
            cells += [text] * (times if text or times < MAX_REPEATED else 1)
        yield cells
