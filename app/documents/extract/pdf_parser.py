"""PDF by PDFium: text in reading order page by page, headings by their size, scanned pages by OCR."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pypdfium2 as pdfium
import pypdfium2.raw as raw

from app.core.errors import InvalidInput
from app.documents.extract import ocr
from app.documents.extract.limits import USUAL, Limits
from app.documents.extract.pages import Pages

# A page with less text than this and a picture on it was scanned.
LEAST_CHARACTERS = 16
OCR_SCALE = 200 / 72
# A line this much larger than the usual one is a heading.
HEADING = ((1.8, "# "), (1.4, "## "), (1.18, "### "))
LONGEST_HEADING = 120
# In heights of the letters: a gap between words, and one between columns or cells.
NARROW_GAP, WIDE_GAP = 0.12, 1.5


def extract(blob: Path, limits: Limits = USUAL, *, password: str | None = None, progress: Any = None) -> Pages:
    document = _opened(blob, password)
    try:
        if len(document) > limits.pdf_pages:
            raise InvalidInput(f"{len(document):,} pages: at most {limits.pdf_pages:,} are read", code="too_many_pages")
        pages = Pages(limits)
        told = document.get_metadata_dict(skip_empty=True)
        pages.title = told.get("Title")
        pages.metadata = {name.lower(): told.get(name) for name in ("Author", "Subject", "Keywords", "CreationDate")}
        scans = _Scans(limits)
        for number in range(1, len(document) + 1):
            text, is_scan = _page(document, number)
            pages.add((scans.read(document, number) if is_scan else None) or text, number)
            if progress is not None:
                progress.report(number, len(document), unit="pages")
        scans.tell(pages)
        return pages
    finally:
        document.close()


class _Scans:
    """Reads scanned pages as long as there is room and a tesseract, and knows which were not read."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.done = 0
        self.unread: list[int] = []
        self._why: InvalidInput | None = None

    def read(self, document: Any, number: int) -> str | None:
        if self.done >= self._limits.scanned_pages or not ocr.is_here():
            self.unread.append(number)
            return None
        self.done += 1
        try:
            return _read_scan(document, number, self._limits)
        except InvalidInput as error:  # one page that tesseract fails on does not take the others with it
            self._why = error
            self.unread.append(number)
            return None

    def tell(self, pages: Pages) -> None:
        """Note what was read so, and what was not. Raises InvalidInput where all of the document was to be read so,
        and could not."""
        pages.ocr = self.done > 0
        if not self.unread:
            return
        if self._why is not None and not pages.text.strip():
            raise self._why
        pages.cut("scanned_pages", self.done)
        pages.metadata["unread_pages"] = self.unread[: self._limits.scanned_pages or None]


def _opened(blob: Path, password: str | None) -> Any:
    try:
        return pdfium.PdfDocument(blob, password=password)
    except pdfium.PdfiumError as error:
        said = str(error)
        if "password" in said.lower() and password is None:
            raise InvalidInput("the PDF is encrypted; give its password", code="encrypted_document") from error
        if "password" in said.lower():
            raise InvalidInput("the PDF's password is another one", code="wrong_password") from error
        raise InvalidInput(f"the PDF is broken: {said}", code="broken_document") from error


def _page(document: Any, number: int) -> tuple[str, bool]:
    """Its text, and whether it looks like a scan. A page that cannot be read is blank, the others are not lost."""
    try:
        page = document[number - 1]
    except pdfium.PdfiumError:
        return "", False
    try:
        shown = page.get_textpage()
        try:
            lines = _lines(shown)
        finally:
            shown.close()
        text = _markdown(_in_columns(lines, page.get_width()))
        few = sum(len(line["text"]) for line in lines) < LEAST_CHARACTERS
        return text, few and any(one.type == raw.FPDF_PAGEOBJ_IMAGE for one in page.get_objects(max_depth=2))
    except pdfium.PdfiumError:
        return "", False
    finally:
        page.close()


def _lines(shown: Any) -> list[dict[str, Any]]:
    """Pieces of lines in the file's order, with their places and sizes; a wide gap, as between columns, parts two."""
    found: list[dict[str, Any]] = []
    for number in range(shown.count_rects()):
        left, bottom, right, top = shown.get_rect(number)
        text = " ".join(shown.get_text_bounded(left, bottom, right, top).split())
        if not text:
            continue
        piece = {"text": text, "left": left, "right": right, "middle": (top + bottom) / 2, "size": top - bottom}
        last = found[-1] if found else None
        gap = left - last["right"] if last else 0.0
        if last and _is_beside(last, piece) and -piece["size"] < gap < WIDE_GAP * piece["size"]:
            last["text"] += (" " if gap > NARROW_GAP * piece["size"] else "") + text
            last["right"], last["size"] = right, max(last["size"], piece["size"])
        else:
            found.append(piece)
    return found


def _is_beside(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether both stand on one line."""
    return bool(abs(one["middle"] - other["middle"]) < 0.5 * max(one["size"], other["size"]))


def _in_columns(lines: list[dict[str, Any]], width: float) -> list[dict[str, Any]]:
    """Lines of two columns that the file holds row by row, put column by column; else as the file has them."""
    middle = width / 2
    right = [line for line in lines if line["left"] > middle]
    left = [line for line in lines if line["left"] < middle * 0.6]
    if len(right) < 5 or len(left) < 5 or len(left) + len(right) < len(lines):
        return lines
    switches = sum((a["left"] > middle) != (b["left"] > middle) for a, b in pairwise(lines))
    return [*left, *right] if switches > len(lines) // 2 else lines


def _markdown(lines: list[dict[str, Any]]) -> str:
    sizes = [line["size"] for line in lines if line["size"] > 0]
    usual = median(sizes) if sizes else 0.0
    written: list[str] = []
    for before, line in zip([None, *lines], lines, strict=False):
        text, mark = line["text"], ""
        if usual and len(text) <= LONGEST_HEADING and len(lines) > 2:
            mark = next((mark for factor, mark in HEADING if line["size"] >= factor * usual), "")
        if before is not None and not mark and line["left"] > before["right"] and _is_beside(before, line):
            written[-1] += f" {text}"
        else:
            written.append(f"\n{mark}{text}\n" if mark else text)
    return "\n".join(written)


def _read_scan(document: Any, number: int, limits: Limits) -> str:
    page = document[number - 1]
    try:
        area = page.get_width() * page.get_height()
        scale = min(OCR_SCALE, (limits.scan_pixels / max(1.0, area)) ** 0.5)
        return ocr.read(page.render(scale=scale, grayscale=True).to_pil(), limits.ocr_s)
    except pdfium.PdfiumError:
        return ""
    finally:
        page.close()
