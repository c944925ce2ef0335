"""Extract a PDF by PDFium: text in reading order page by page, headings by size, scanned pages by OCR."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pypdfium2 as pdfium
import pypdfium2.raw as raw

from app.core.errors import InvalidInput
from app.documents.extract import ocr
from app.documents.extract.limits import USUAL, ExtractLimits
from app.documents.extract.pages import Pages
from app.documents.extract.pdf.pdf_annotations_parser import flatten, missing_texts
from app.documents.extract.pdf.pdf_bidi import DIVISION
from app.documents.extract.pdf.pdf_lines_parser import PdfLine, has_letters, open_text, read_lines

# A page with an image and less text than this was scanned.
MIN_CHARACTERS = 16
OCR_SCALE = 200 / 72
# A line larger than the usual one by this factor is a heading.
HEADING = ((1.8, "# "), (1.4, "## "), (1.18, "### "))
MAX_HEADING_CHARACTERS = 120


def extract(blob: Path, limits: ExtractLimits = USUAL, *, password: str | None = None, progress: Any = None) -> Pages:
    document = _open(blob, password)
    try:
        if len(document) > limits.pdf_pages:
            raise InvalidInput(
                f"the PDF has {len(document):,} pages; at most {limits.pdf_pages:,} are read", code="too_many_pages"
            )
        pages = Pages(limits)
        metadata = document.get_metadata_dict(skip_empty=True)
        pages.title = metadata.get("Title")
        pages.metadata = {
            name.lower(): metadata.get(name) for name in ("Author", "Subject", "Keywords", "CreationDate")
        }
        scans = _Scans(limits)
        for number in range(1, len(document) + 1):
            text, is_scan = _page(document, number)
            pages.add((scans.read(document, number) if is_scan else None) or text, number)
            if progress is not None:
                progress.report(number, len(document), unit="pages")
        scans.note(pages)
        return pages
    finally:
        document.close()


class _Scans:
    """Reads scanned pages up to the limit, if tesseract is installed, and records the pages left unread."""

    def __init__(self, limits: ExtractLimits) -> None:
        self._limits = limits
        self.done = 0
        self.unread: list[int] = []
        self._why: InvalidInput | None = None

    def read(self, document: Any, number: int) -> str | None:
        if self.done >= self._limits.scanned_pages or not ocr.is_installed():
            self.unread.append(number)
            return None
        self.done += 1
        try:
            return _read_scan(document, number, self._limits)
        except InvalidInput as error:  # a page that tesseract fails on must not lose the others
            self._why = error
            self.unread.append(number)
            return None

    def note(self, pages: Pages) -> None:
        """Note the pages read by OCR, and those left unread. Raises InvalidInput if the whole document needed OCR and
        OCR failed."""
        pages.ocr = self.done > 0
        if not self.unread:
            return
        pages.needs_ocr = not ocr.is_installed()
        if self._why is not None and not pages.text.strip():
            raise self._why
        pages.cut("scanned_pages", self.done)
        pages.metadata["unread_pages"] = self.unread[: self._limits.scanned_pages or None]


def _open(blob: Path, password: str | None) -> Any:
    try:
        document = pdfium.PdfDocument(blob, password=password)
        document.init_forms()
        return document
    except pdfium.PdfiumError as error:
        reason = str(error)
        if "password" in reason.lower() and password is None:
            raise InvalidInput("the PDF is encrypted; send its password", code="encrypted_document") from error
        if "password" in reason.lower():
            raise InvalidInput("the password does not open the PDF", code="wrong_password") from error
        raise InvalidInput(f"the PDF is broken: {reason}", code="broken_document") from error


def _page(document: Any, number: int) -> tuple[str, bool]:
    """Return the page's text, and True if it looks like a scan. An unreadable page is blank; the others are kept."""
    try:
        page, notes = flatten(document, number - 1)
    except pdfium.PdfiumError:
        return "", False
    try:
        shown = open_text(page)
        try:
            lines, is_garbled = read_lines(shown), not has_letters(shown)
        finally:
            shown.close()
        text = _markdown(_in_columns(lines, page.get_width()))
        text = "\n\n".join([text, *missing_texts(notes, text)])
        few = sum(len(line.text) for line in lines) < MIN_CHARACTERS
        has_picture = few and any(item.type == raw.FPDF_PAGEOBJ_IMAGE for item in page.get_objects(max_depth=2))
        return text, is_garbled or has_picture
    except pdfium.PdfiumError:
        return "", False
    finally:
        page.close()


def _in_columns(lines: list[PdfLine], width: float) -> list[PdfLine]:
    """Reorder lines of two columns that the file stores row by row; otherwise keep the file's order."""
    middle = width / 2
    right = [line for line in lines if line.left > middle]
    left = [line for line in lines if line.left < middle * 0.6]
    if len(right) < 5 or len(left) < 5 or len(left) + len(right) < len(lines):
        return lines
    switches = sum((a.left > middle) != (b.left > middle) for a, b in pairwise(lines))
    return [*left, *right] if switches > len(lines) // 2 else lines


def _markdown(lines: list[PdfLine]) -> str:
    sizes = [line.size for line in lines if line.size > 0]
    usual = median(sizes) if sizes else 0.0
    written: list[str] = []
    for before, line in zip([None, *lines], lines, strict=False):
        text, mark = line.text, ""
        if usual and len(text) <= MAX_HEADING_CHARACTERS and len(lines) > 2:
            mark = next((mark for factor, mark in HEADING if line.size >= factor * usual), "")
        if before is not None and before.text.endswith(DIVISION) and written:
            written[-1] = written[-1].rstrip("\n").removesuffix(DIVISION) + text
        elif before is not None and not mark and line.left > before.right and line.is_beside(before):
            written[-1] += f" {text}"
        else:
            written.append(f"\n{mark}{text}\n" if mark else text)
    return "\n".join(written)


def _read_scan(document: Any, number: int, limits: ExtractLimits) -> str:
    page = document[number - 1]
    try:
        area = page.get_width() * page.get_height()
        scale = min(OCR_SCALE, (limits.scan_pixels / max(1.0, area)) ** 0.5)
        return ocr.read(page.render(scale=scale, grayscale=True).to_pil(), limits.ocr_s)
    except pdfium.PdfiumError:
        return ""
    finally:
        page.close()
