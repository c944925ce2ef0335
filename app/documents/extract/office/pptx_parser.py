"""PowerPoint files: a page a slide with title, texts, tables, charts, equations, alternative texts, notes, comments."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lxml import etree

from app.documents.extract import archives
from app.documents.extract.limits import ExtractLimits
from app.documents.extract.office.equation_parser import equation_text
from app.documents.extract.office.ooxml_parser import (
    Package,
    alternative_text,
    attribute,
    chart_text,
    child,
    chosen,
    descendants,
    describe,
    diagram_text,
    name_of,
)
from app.documents.extract.pages import Pages

_TITLES = ("title", "ctrTitle")
# Placeholders that only repeat the number or the picture of a slide.
_SILENT = ("sldNum", "sldImg", "dt")


def extract_pptx(blob: Path, limits: ExtractLimits) -> Pages:
    with archives.open_archive(blob) as archive:
        package = Package(archive)
        pages = Pages(limits)
        describe(pages, package)
        main = package.main()
        root = package.read(main)
        slides = child(root, "sldIdLst")
        for entry in slides if slides is not None else ():
            relationship = package.relationships(main).get(_relation_id(entry))
            slide = package.read(relationship.part) if relationship is not None else None
            if relationship is not None and slide is not None:
                pages.add("\n\n".join(_slide(package, pages, relationship.part, slide)))
        return pages


def _relation_id(entry: etree._Element) -> str:
    """Return the attribute `r:id`; the entry has another `id` without a namespace."""
    return next((value for key, value in entry.attrib.items() if key.endswith("}id")), "")


def _slide(package: Package, pages: Pages, part: str, slide: etree._Element) -> Iterator[str]:
    tree = child(slide, "cSld", "spTree")
    titles, others = [], []
    for shape in _shapes(tree):
        kind = _placeholder(shape)
        if kind in _SILENT:
            continue
        texts = [text for text in _texts(package, pages, part, shape) if text.strip()]
        if kind in _TITLES and texts:
            titles.append(f"# {' '.join(texts[0].split())}")
            texts = texts[1:]
        others += texts
    yield from titles
    yield from others
    for name, notes in package.related(part, "notesSlide"):
        for shape in _shapes(child(notes, "cSld", "spTree")):
            if _placeholder(shape) not in _SILENT:
                yield from (text for text in _texts(package, pages, name, shape) if text.strip())
    yield from _comments(package, part)


def _shapes(tree: etree._Element | None) -> Iterator[etree._Element]:
    """Yield the shapes of a slide, those of groups too."""
    for element in tree if tree is not None else ():
        name = name_of(element)
        if name == "grpSp":
            yield from _shapes(element)
        elif name == "AlternateContent":
            yield from _shapes(chosen(element))
        elif name in ("sp", "pic", "graphicFrame", "cxnSp", "contentPart"):
            yield element


def _properties(shape: etree._Element) -> etree._Element | None:
    return next((item for item in shape if name_of(item).startswith("nv")), None)


def _placeholder(shape: etree._Element) -> str | None:
    """Return the kind of a placeholder; None for any other shape."""
    place = child(_properties(shape), "nvPr", "ph")
    return None if place is None else attribute(place, "type") or "obj"


def _texts(package: Package, pages: Pages, part: str, shape: etree._Element) -> Iterator[str]:
    body = child(shape, "txBody")
    if body is not None:
        yield "\n".join(text for text in _paragraphs(body) if text)
    for table in descendants(shape, "tbl"):
        rows = (
            [" ".join(_paragraphs(cell)) for cell in row if name_of(cell) == "tc"] for row in descendants(table, "tr")
        )
        yield pages.table(rows)
    for item in descendants(shape, "chart", "relIds"):
        relationship = package.relationships(part).get(attribute(item, "id") or attribute(item, "dm") or "")
        root = package.read(relationship.part) if relationship is not None else None
        if root is not None:
            yield diagram_text(root) if name_of(item) == "relIds" else chart_text(pages, root)
    properties = _properties(shape)
    if properties is not None:
        yield alternative_text(child(properties, "cNvPr"))


def _paragraphs(parent: etree._Element) -> Iterator[str]:
    for paragraph in descendants(parent, "p"):
        yield "".join(_runs(paragraph)).strip()


def _runs(parent: etree._Element) -> Iterator[str]:
    for element in parent:
        name = name_of(element)
        if name == "t":
            yield element.text or ""
        elif name in ("r", "fld", "m"):
            yield from _runs(element)
        elif name == "br":
            yield "\n"
        elif name in ("oMath", "oMathPara"):
            yield f" {equation_text(element)} "
        elif name == "AlternateContent" and (form := chosen(element)) is not None:
            yield from _runs(form)


def _comments(package: Package, part: str) -> Iterator[str]:
    """Yield the comments on a slide: one part by both older and newer versions, with other names for its parts."""
    for _, comments in package.related(part, "comments", "comment"):
        for comment in descendants(comments, "cm", "reply"):
            own = child(comment, "text")
            body = child(comment, "txBody")
            text = (own.text or "") if own is not None else " ".join(_paragraphs(body)) if body is not None else ""
            if text.strip():
                yield text.strip()
