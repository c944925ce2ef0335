"""Word files: the body with lists, tables, text boxes, charts, equations and fields; then notes, comments, headers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lxml import etree

from app.core.errors import InvalidInput
from app.documents.extract import archives
from app.documents.extract.html_parser import to_markdown
from app.documents.extract.limits import ExtractLimits
from app.documents.extract.office.docx_styles_parser import DocxStyles
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
from app.documents.extract.plain import decode, decode_html

# Wrappers of blocks or runs whose content is read like their own place.
_WRAPPERS = {
    "customXml",
    "smartTag",
    "ins",
    "moveTo",
    "sdtContent",
    "hyperlink",
    "fldSimple",
    "dir",
    "bdo",
    "txbxContent",
}
_SIGNS = {"tab": " ", "ptab": " ", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}


def extract_docx(blob: Path, limits: ExtractLimits) -> Pages:
    with archives.open_archive(blob) as archive:
        pages = Pages(limits)
        reader = _DocxReader(Package(archive), pages)
        describe(pages, reader.package)
        pages.add("\n\n".join(reader.read()))
        return pages


class _DocxReader:
    """Reads one Word file."""

    def __init__(self, package: Package, pages: Pages) -> None:
        self.package = package
        self._pages = pages
        self._main = package.main()
        self._part = self._main
        self._styles = DocxStyles(package, self._main)
        # Blocks that belong behind the paragraph under way: text boxes, charts.
        self._behind: list[str] = []

    def read(self) -> Iterator[str]:
        """Yield the blocks of the document as Markdown."""
        root = self.package.read(self._main)
        body = child(root, "body")
        if body is None:
            raise InvalidInput("the docx file is broken: it has no body", code="broken_document")
        yield from self._joined(self._blocks(body))
        for kind in ("footnote", "endnote"):
            yield from self._notes(kind)
        for comment in (comment for comments in self._others("comments") for comment in comments):
            text, author = " ".join(self._blocks(comment)), attribute(comment, "author")
            if text:
                yield f"{author}: {text}" if author else text
        texts = ["\n\n".join(self._blocks(part)) for part in self._others("header", "footer")]
        yield from dict.fromkeys(text for text in texts if any(map(str.isalpha, text)))

    def _others(self, *kinds: str) -> Iterator[etree._Element]:
        """Yield the other parts of these kinds; pictures and charts are looked up in the part being read."""
        for name, root in self.package.related(self._main, *kinds):
            self._part = name
            yield root
        self._part = self._main

    def _notes(self, kind: str) -> Iterator[str]:
        for note in (note for notes in self._others(f"{kind}s") for note in notes):
            if attribute(note, "type") in (None, "normal") and (text := " ".join(self._blocks(note))):
                yield f"[^{attribute(note, 'id')}]: {text}"

    @staticmethod
    def _joined(blocks: Iterator[str]) -> Iterator[str]:
        """Yield the blocks with the items of a list as one."""
        items: list[str] = []
        for block in blocks:
            start = block.lstrip(" ")
            if start.startswith("- ") or (start.partition(". ")[0].isdecimal() and not block.startswith("#")):
                items.append(block)
                continue
            if items:
                yield "\n".join(items)
                items = []
            yield block
        if items:
            yield "\n".join(items)

    def _blocks(self, parent: etree._Element) -> Iterator[str]:
        for element in parent:
            name = name_of(element)
            if name == "p":
                yield from self._paragraph(element)
            elif name == "tbl":
                yield self._pages.table(self._rows(element))
            elif name == "sdt":
                yield from self._blocks(content) if (content := child(element, "sdtContent")) is not None else ()
            elif name in _WRAPPERS:
                yield from self._blocks(element)
            elif name == "AlternateContent" and (form := chosen(element)) is not None:
                yield from self._blocks(form)
            elif name in ("oMath", "oMathPara"):
                yield equation_text(element)
            elif name == "altChunk" and (text := self._inserted(attribute(element, "id") or "")):
                yield text

    def _inserted(self, relationship_id: str) -> str:
        """Return the text of an inserted file: HTML or plain text."""
        relationship = self.package.relationships(self._part).get(relationship_id)
        data = self.package.read_bytes(relationship.part) if relationship is not None else None
        if relationship is None or data is None:
            return ""
        ending = relationship.part.rpartition(".")[2].lower()
        if ending in ("html", "htm", "xhtml"):
            return to_markdown(decode_html(data))
        return decode(data) if ending == "txt" else ""

    def _rows(self, table: etree._Element) -> Iterator[list[str]]:
        for row in table:
            if name_of(row) == "tr":
                yield [" ".join(" ".join(self._blocks(cell)).split()) for cell in self._cells(row)]
            elif name_of(row) in ("sdt", "customXml", "ins"):
                content = child(row, "sdtContent")
                yield from self._rows(row if content is None else content)

    def _cells(self, parent: etree._Element) -> Iterator[etree._Element]:
        for element in parent:
            if name_of(element) == "tc":
                yield element
                span = attribute(child(element, "tcPr", "gridSpan"), "val") or "1"
                for _ in range(min(int(span), 100) - 1 if span.isdecimal() else 0):
                    yield etree.Element("blank")
            elif name_of(element) in ("sdt", "customXml"):
                content = child(element, "sdtContent")
                yield from self._cells(element if content is None else content)

    def _paragraph(self, paragraph: etree._Element) -> Iterator[str]:
        outer, self._behind = self._behind, []
        text = "".join(self._runs(paragraph)).strip()
        if text:
            yield f"{self._styles.mark(child(paragraph, 'pPr'))}{text}"
        behind, self._behind = self._behind, outer
        yield from behind

    def _runs(self, parent: etree._Element) -> Iterator[str]:
        for element in parent:
            name = name_of(element)
            if name == "t":
                yield element.text or ""
            elif name in _SIGNS:
                yield _SIGNS[name]
            elif name == "r" or name in _WRAPPERS:
                yield from self._runs(element)
            elif name == "sdt":
                yield from self._runs(content) if (content := child(element, "sdtContent")) is not None else ()
            elif name == "AlternateContent" and (form := chosen(element)) is not None:
                yield from self._runs(form)
            elif name in ("oMath", "oMathPara"):
                yield equation_text(element) if name == "oMath" else f" {equation_text(element)} "
            elif name in ("drawing", "pict", "object"):
                yield from self._drawing(element)
            elif name == "ruby":
                yield from self._runs(base) if (base := child(element, "rubyBase")) is not None else ()
            else:
                yield _small(element, name)

    def _drawing(self, drawing: etree._Element) -> Iterator[str]:
        """Yield a picture's alternative text; put text boxes and charts behind the paragraph."""
        for item in descendants(drawing, "docPr", "textpath", "shape"):
            text = alternative_text(item) or attribute(item, "string") or attribute(item, "alt") or ""
            if text:
                yield f" {text} "
        for box in descendants(drawing, "txbxContent"):
            if not any(name_of(above) == "txbxContent" for above in box.iterancestors()):
                self._behind += list(self._blocks(box))
        for item in descendants(drawing, "chart", "relIds"):
            relationship = self.package.relationships(self._part).get(
                attribute(item, "id") or attribute(item, "dm") or ""
            )
            root = self.package.read(relationship.part) if relationship is not None else None
            if root is not None:
                self._behind.append(diagram_text(root) if name_of(item) == "relIds" else chart_text(self._pages, root))


def _small(element: etree._Element, name: str) -> str:
    """Return the text of a sign, of a reference to a note, or of a form field that has no runs."""
    if name == "sym":
        code = attribute(element, "char") or ""
        return chr(int(code, 16)) if code.isalnum() and len(code) == 4 and not code.upper().startswith("F0") else ""
    if name in ("footnoteReference", "endnoteReference"):
        return f"[^{attribute(element, 'id')}]"
    if name == "fldChar" and (data := child(element, "ffData")) is not None:
        return _form_field(data)
    return ""


def _form_field(data: etree._Element) -> str:
    """Return the value of a box or of a list of choices; a text field has its value in runs."""
    box, choices = child(data, "checkBox"), child(data, "ddList")
    if box is not None:
        state = child(box, "checked")
        state = child(box, "default") if state is None else state
        is_checked = state is not None and attribute(state, "val") not in ("0", "false", "off")
        return "☒ " if is_checked else "☐ "
    if choices is not None:
        entries = [attribute(item, "val") or "" for item in choices if name_of(item) == "listEntry"]
        index = attribute(child(choices, "result"), "val") or attribute(child(choices, "default"), "val") or "0"
        return entries[int(index)] if index.isdecimal() and int(index) < len(entries) else ""
    return ""
