"""Styles and lists of a Word file: the headings, and the numbers of list items."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from lxml import etree

from app.documents.extract.office.ooxml_parser import Package, attribute, child, name_of

MAX_LEVELS = 9


@dataclass(slots=True)
class _Style:
    name: str = ""
    parent: str | None = None
    outline: int | None = None
    numbering: tuple[str, int] | None = None


@dataclass(slots=True)
class _Lists:
    """Formats of lists, and the numbers that their items have reached."""

    formats: dict[str, dict[int, tuple[str, int]]] = field(default_factory=dict)
    counts: dict[str, list[int]] = field(default_factory=dict)

    def mark(self, list_id: str, level: int) -> str:
        """Return the mark of the next item, indented by its level."""
        kind = self.formats.get(list_id, {}).get(level, ("bullet", 1))[0]
        indent = "   " * level
        if kind in ("bullet", "none"):
            return f"{indent}- "
        counts = self.counts.setdefault(list_id, [])
        while len(counts) <= level:
            counts.append(self.formats.get(list_id, {}).get(len(counts), ("", 1))[1] - 1)
        counts[level] += 1
        del counts[level + 1 :]
        return f"{indent}{counts[level]}. "


class DocxStyles:
    """Styles of a file by their id, and the state of its lists."""

    def __init__(self, package: Package, main: str) -> None:
        self._styles = self._read_styles(package, main)
        self._lists = self._read_lists(package, main)

    def mark(self, properties: etree._Element | None) -> str:
        """Return the mark of a heading or a list item, by the properties of its paragraph."""
        style = self._style(attribute(child(properties, "pStyle"), "val"))
        name = style.name.lower()
        level = attribute(child(properties, "outlineLvl"), "val") or ""
        if name == "title":
            return "# "
        if name.startswith("heading "):
            number = name.removeprefix("heading ")
            return f"{'#' * min(int(number), 6)} " if number.isdecimal() else "## "
        outline = int(level) if level.isdecimal() else style.outline
        if outline is not None and outline < MAX_LEVELS:
            return f"{'#' * min(outline + 1, 6)} "
        numbering = _numbering(child(properties, "numPr"), style.numbering)
        if numbering is not None and numbering[0] != "0":
            return self._lists.mark(*numbering)
        return "- " if name.startswith("list") else ""

    def _style(self, style_id: str | None) -> _Style:
        """Return a style with what it inherits."""
        style = self._styles.get(style_id or "", _Style())
        result, parent, depth = style, style.parent, 0
        while parent is not None and depth < 20:
            above = self._styles.get(parent, _Style())
            is_heading = above.name.lower().startswith("heading ") or above.name.lower() == "title"
            result = _Style(
                above.name if is_heading and not result.name.lower().startswith("heading ") else result.name,
                None,
                result.outline if result.outline is not None else above.outline,
                result.numbering or above.numbering,
            )
            parent, depth = above.parent, depth + 1
        return result

    def _read_styles(self, package: Package, main: str) -> dict[str, _Style]:
        styles: dict[str, _Style] = {}
        for _, root in package.related(main, "styles"):
            for item in root:
                if name_of(item) == "style":
                    outline = attribute(child(item, "pPr", "outlineLvl"), "val") or ""
                    styles[attribute(item, "styleId") or ""] = _Style(
                        attribute(child(item, "name"), "val") or "",
                        attribute(child(item, "basedOn"), "val"),
                        int(outline) if outline.isdecimal() else None,
                        _numbering(child(item, "pPr", "numPr"), None),
                    )
        return styles

    def _read_lists(self, package: Package, main: str) -> _Lists:
        lists = _Lists()
        for _, root in package.related(main, "numbering"):
            abstract = {
                attribute(item, "abstractNumId"): dict(_levels(item)) for item in root if name_of(item) == "abstractNum"
            }
            for item in root:
                if name_of(item) == "num":
                    formats = abstract.get(attribute(child(item, "abstractNumId"), "val"), {})
                    lists.formats[attribute(item, "numId") or ""] = formats
        return lists


def _levels(abstract: etree._Element) -> Iterator[tuple[int, tuple[str, int]]]:
    for level in abstract:
        number, start = attribute(level, "ilvl") or "", attribute(child(level, "start"), "val") or "1"
        if name_of(level) == "lvl" and number.isdecimal():
            yield (
                int(number),
                (attribute(child(level, "numFmt"), "val") or "decimal", int(start) if start.isdecimal() else 1),
            )


def _numbering(properties: etree._Element | None, inherited: tuple[str, int] | None) -> tuple[str, int] | None:
    """Return the id of the paragraph's list and its level."""
    if properties is None:
        return inherited
    list_id = attribute(child(properties, "numId"), "val") or (inherited[0] if inherited else None)
    level = attribute(child(properties, "ilvl"), "val") or "0"
    if list_id is None:
        return None
    return list_id, min(int(level), MAX_LEVELS - 1) if level.isdecimal() else 0
