"""Parts of Office files by their relationships, and what Word, PowerPoint and Excel share: charts and equations.

Elements and attributes are compared by local name: "Strict" files have other namespaces and the same names.
"""

from __future__ import annotations

import posixpath
import zipfile
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import unquote

from lxml import etree

from app.core.errors import InvalidInput
from app.documents.extract import archives
from app.documents.extract.pages import Pages
from app.documents.extract.xml_parser import parse_xml

# Office relates a document to far fewer parts; more would be read for nothing.
MAX_RELATIONSHIPS = 20_000
_USUAL_PARTS = ("word/document.xml", "ppt/presentation.xml", "xl/workbook.xml")
MAX_POINTS = 100_000


class Relationship(NamedTuple):
    """Another part of the file; `kind` is the last word of its type, such as header."""

    kind: str
    part: str


class Package:
    """The parts of an Office file. Names are compared without regard to case, as the standard has it."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._names = {name.replace("\\", "/").lstrip("/").lower(): name for name in archive.namelist()}
        self._relationships: dict[str, dict[str, Relationship]] = {}

    def read(self, part: str) -> etree._Element | None:
        """Return the root element of a part; None for a part that is missing or empty."""
        data = self.read_bytes(part)
        return parse_xml(data) if data and data.strip() else None

    def read_bytes(self, part: str) -> bytes | None:
        """Return the bytes of a part; None for a missing one."""
        name = self._names.get(part.lower())
        return archives.read_member(self._archive, name) if name is not None else None

    def main(self) -> str:
        """Return the name of the main part. Raises InvalidInput if the file names none."""
        for relationship in self.relationships("").values():
            if relationship.kind == "officeDocument":
                return relationship.part
        for part in _USUAL_PARTS:
            if part in self._names:
                return part
        raise InvalidInput("the file is broken: it names no document", code="broken_document")

    def relationships(self, part: str) -> dict[str, Relationship]:
        """Return the parts that this one refers to, by id; `""` is the file as a whole."""
        if part not in self._relationships:
            self._relationships[part] = dict(self._read_relationships(part))
        return self._relationships[part]

    def related(self, part: str, *kinds: str) -> Iterator[tuple[str, etree._Element]]:
        """Yield name and root of each part of these kinds that this one refers to, each once."""
        names = [relationship.part for relationship in self.relationships(part).values() if relationship.kind in kinds]
        for name in dict.fromkeys(names):
            root = self.read(name)
            if root is not None:
                yield name, root

    def _read_relationships(self, part: str) -> Iterator[tuple[str, Relationship]]:
        folder, name = posixpath.split(part)
        root = self.read(posixpath.join(folder, "_rels", f"{name}.rels"))
        for number, item in enumerate(root if root is not None else ()):
            if number >= MAX_RELATIONSHIPS:
                break
            if not isinstance(item.tag, str) or item.get("TargetMode") == "External":
                continue
            target = unquote(item.get("Target", "").partition("#")[0]).replace("\\", "/")
            path = target.lstrip("/") if target.startswith("/") else posixpath.normpath(posixpath.join(folder, target))
            yield item.get("Id", ""), Relationship(item.get("Type", "").rpartition("/")[2], path)


def describe(pages: Pages, package: Package) -> None:
    """Set title, language and metadata from the properties of the file."""
    for _, root in package.related("", "core-properties"):
        texts = {name_of(item): (item.text or "").strip() for item in root if isinstance(item.tag, str)}
        pages.title, pages.language = texts.get("title") or None, texts.get("language") or None
        pages.metadata = {"author": texts.get("creator"), "subject": texts.get("subject")}
        pages.metadata["keywords"] = texts.get("keywords")


def name_of(element: etree._Element) -> str:
    """Return the local name; blank for a comment."""
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def attribute(element: etree._Element | None, name: str) -> str | None:
    """Return an attribute by its local name."""
    if element is None:
        return None
    return next((value for key, value in element.attrib.items() if key.rpartition("}")[2] == name), None)


def child(element: etree._Element | None, *path: str) -> etree._Element | None:
    """Return the first descendant along a path of local names."""
    for name in path:
        if element is None:
            return None
        element = next((item for item in element if name_of(item) == name), None)
    return element


def descendants(element: etree._Element, *names: str) -> Iterator[etree._Element]:
    return (item for item in element.iter() if name_of(item) in names)


def chosen(alternatives: etree._Element) -> etree._Element | None:
    """Return the one of several forms of the same content that is read: newer programs write both."""
    first = child(alternatives, "Choice")
    return first if first is not None and len(first) else child(alternatives, "Fallback")


def alternative_text(properties: etree._Element | None) -> str:
    """Return the text that stands for a picture or a shape."""
    texts = [attribute(properties, "title") or "", attribute(properties, "descr") or ""]
    return " ".join(" ".join(dict.fromkeys(text for text in texts if text)).split())


def chart_text(pages: Pages, root: etree._Element) -> str:
    """Return a chart's titles, and its values as a table with a column for each series."""
    titles = ["".join(item.text or "" for item in descendants(title, "t")) for title in descendants(root, "title")]
    series = list(descendants(root, "ser", "series"))
    columns = [_points(item, "val", "yVal", "numDim") for item in series]
    labels: dict[int, str] = {}
    for item in series:
        labels = labels or _points(item, "cat", "xVal")
    names = [" ".join(_points(item, "tx").values()) or f"{number}" for number, item in enumerate(series, 1)]
    rows = sorted({index for column in (labels, *columns) for index in column})
    table = pages.table(
        [["", *names], *([labels.get(row, ""), *(column.get(row, "") for column in columns)] for row in rows)]
    )
    return "\n\n".join([*(" ".join(title.split()) for title in titles if title.strip()), *([table] if rows else [])])


def _points(series: etree._Element, *names: str) -> dict[int, str]:
    """Return the stored values of a series by their index."""
    points: dict[int, str] = {}
    for part in series:
        if name_of(part) not in names:
            continue
        for point in descendants(part, "pt"):
            value, index = child(point, "v"), attribute(point, "idx") or ""
            text = value.text if value is not None else point.text
            if index.isdecimal() and text and int(index) < MAX_POINTS:
                points[int(index)] = points.get(int(index), "") + (" " if int(index) in points else "") + text
        if not points and (value := next(descendants(part, "v"), None)) is not None and value.text:
            points[0] = value.text
    return points


def diagram_text(root: etree._Element) -> str:
    """Return the texts of a diagram (SmartArt), one a line."""
    texts = ("".join(item.text or "" for item in descendants(point, "t")) for point in descendants(root, "pt"))
    return "\n".join(text for text in texts if text.strip())
