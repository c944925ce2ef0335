"""Read the lines of a PDF page: PDFium's order of the text, and words divided by the advance widths of the font."""

from __future__ import annotations

import ctypes
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import hypot
from statistics import median
from typing import Any

import pypdfium2.raw as raw

from app.documents.extract.pdf.pdf_bidi import DIVISION, PdfGlyph, in_reading_order, is_right_to_left

# Of the size of the font: a gap between two letters, beyond the usual gap of their line, that divides words.
MIN_SPACE = 0.15
# The same for Arabic, whose letters often have less than their advance width.
MIN_JOINED_SPACE = 0.3
# A gap within a word. PDFium's spaces of this width, in a line of single letters, are the letters' distance.
MAX_LETTER_GAP = 0.1
# Letters further apart than this are a table of letters, not a spaced word.
MAX_USUAL_GAP = 0.6
# A gap between Chinese characters that divides them, as in a table.
MIN_WIDE_SPACE = 0.2
# A gap between columns or cells.
MIN_COLUMN_GAP = 1.5
# Share of single letters among the words of a line that was set with space between its letters.
MIN_SINGLE_SHARE = 0.6
MIN_SPACED_WORDS = 4
MIN_SAMPLE, MAX_SAMPLE = 16, 2_000
# Letters this far from the line before them, in sizes, begin a line.
MIN_LINE_STEP = 0.8
# Neighbours on one line differ by less, and overlap by less.
MAX_LEVEL_STEP, MAX_OVERLAP = 0.25, 0.3


@dataclass(slots=True)
class PdfLine:
    """A part of a line without a wide gap in it."""

    text: str
    left: float
    right: float
    base: float
    size: float
    is_turned: bool = False

    def is_beside(self, other: PdfLine) -> bool:
        """Return True if both are on one line."""
        if self.is_turned or other.is_turned:
            return False
        return abs(self.base - other.base) < 0.5 * max(self.size, other.size)


def read_lines(page_text: Any) -> list[PdfLine]:
    """Return the parts of the page's lines in PDFium's order."""
    return [line for glyphs in _split(_glyphs(page_text)) for line in _parts(glyphs)]


def open_text(page: Any) -> Any:
    """Return the page's text after turning the page so that most letters stand upright, as PDFium's order needs."""
    page_text = page.get_textpage()
    turn = _turn(page_text)
    if page.get_rotation() != turn:
        page_text.close()
        page.set_rotation(turn)
        page_text = page.get_textpage()
    return page_text


def _turn(page_text: Any) -> int:
    """Return the rotation of the page, in degrees to the right, that most letters need."""
    counts = {0: 1, 90: 0, 180: 0, 270: 0}
    matrix = raw.FS_MATRIX()
    for number in range(min(page_text.count_chars(), MAX_SAMPLE)):
        if raw.FPDFText_IsGenerated(page_text, number) == 1 or not raw.FPDFText_GetMatrix(page_text, number, matrix):
            continue
        sign = -1 if raw.FPDFText_GetFontSize(page_text, number) < 0 else 1
        along, across = sign * matrix.a, sign * matrix.b
        counts[(0 if along >= 0 else 180) if abs(along) >= abs(across) else 90 if across > 0 else 270] += 1
    return max(counts, key=lambda degrees: counts[degrees])


def has_letters(page_text: Any) -> bool:
    """Return False for a page most of whose characters its fonts map to none: only a picture of it can be read."""
    codes = [raw.FPDFText_GetUnicode(page_text, number) for number in range(min(page_text.count_chars(), MAX_SAMPLE))]
    shown = [code for code in codes if code not in (0x0A, 0x0D, 0x20)]
    unmapped = sum(code < 0x20 or code >= 0xFFFD or 0xE000 <= code < 0xF900 for code in shown)
    return len(shown) < MIN_SAMPLE or unmapped <= len(shown) // 2


def _glyphs(page_text: Any) -> Iterator[PdfGlyph]:
    box, matrix = raw.FS_RECTF(), raw.FS_MATRIX()
    x, y = ctypes.c_double(), ctypes.c_double()
    known: tuple[float, float] = (0.0, 0.0)
    size = 1.0
    high = 0
    for number in range(page_text.count_chars()):
        code = raw.FPDFText_GetUnicode(page_text, number)
        if 0xD800 <= code < 0xDC00:
            high = code
            continue
        if 0xDC00 <= code < 0xE000 and high:  # the second half of a character outside of the first plane
            code, high = 0x10000 + ((high - 0xD800) << 10) + code - 0xDC00, 0
        if raw.FPDFText_IsHyphen(page_text, number) == 1:
            code = ord(DIVISION)
        is_made = raw.FPDFText_IsGenerated(page_text, number) == 1
        raw.FPDFText_GetLooseCharBox(page_text, number, box)
        raw.FPDFText_GetCharOrigin(page_text, number, x, y)
        if not is_made:
            font_size = raw.FPDFText_GetFontSize(page_text, number)
            if (font_size, box.top - box.bottom) != known:
                known = (font_size, box.top - box.bottom)
                raw.FPDFText_GetMatrix(page_text, number, matrix)
                size = abs(font_size) * hypot(matrix.c, matrix.d) or known[1] or 1.0
        is_turned = abs(matrix.b) > 0.1 * hypot(matrix.a, matrix.b)
        yield PdfGlyph(_character(code), is_made, box.left, box.right, y.value, size, is_turned)


def _character(code: int) -> str:
    """Return the character; a code that the font maps to none is a blank, since it takes its place."""
    if code in (0x0D, 0x0A):
        return "\n"
    if 0xFB00 <= code < 0xFE00 or 0xFE70 <= code < 0xFEFF:  # ligatures and forms that letters take within a word
        return unicodedata.normalize("NFKC", chr(code))
    is_text = 0x20 <= code < 0xD800 or 0xDFFF < code < 0x110000
    return chr(code) if is_text and code not in (0xFFFE, 0xFFFF, 0xFEFF) else " "


def _split(glyphs: Iterator[PdfGlyph]) -> Iterator[list[PdfGlyph]]:
    """Yield the lines: at PDFium's line ends, and where letters leave the line without one.

    A line end between two neighbours does not count: PDFium takes a page with narrow columns for one written downwards.
    """
    line: list[PdfGlyph] = []
    last: PdfGlyph | None = None
    is_ended = False
    for glyph in glyphs:
        if glyph.text == "\n":
            is_ended = True
            continue
        if last is not None and not glyph.is_made:
            if _leaves(last, glyph) or (is_ended and not _continues(last, glyph)):
                yield line
                line = []
            is_ended = False
        if not glyph.is_made:
            last = glyph
        line.append(glyph)
    if line:
        yield line


def _leaves(last: PdfGlyph, glyph: PdfGlyph) -> bool:
    if last.is_turned or glyph.is_turned or _is_wide(glyph.text):
        return False
    return abs(glyph.base - last.base) > MIN_LINE_STEP * max(last.size, glyph.size)


def _continues(last: PdfGlyph, glyph: PdfGlyph) -> bool:
    if last.is_turned or glyph.is_turned or last.text == DIVISION:
        return False
    is_level = abs(glyph.base - last.base) < MAX_LEVEL_STEP * max(last.size, glyph.size)
    return is_level and -MAX_OVERLAP < _gap(last, glyph) < MIN_COLUMN_GAP


def _is_wide(text: str) -> bool:
    """Return True for Chinese characters and kana, which are written without spaces, and also from top to bottom."""
    code = ord(text[0])
    return 0x3040 <= code < 0x3100 or 0x3400 <= code < 0xA000 or 0xF900 <= code < 0xFB00 or 0x20000 <= code < 0x32000


def _gap(first: PdfGlyph, second: PdfGlyph) -> float:
    """Return the distance of two letters in sizes, whichever stands to the left."""
    distance = max(second.left - first.right, first.left - second.right)
    return distance / max(0.01, first.size, second.size)


def _parts(glyphs: list[PdfGlyph]) -> Iterator[PdfLine]:
    """Yield the parts of a line, their words divided."""
    glyphs = in_reading_order(glyphs)
    letters = [glyph for glyph in glyphs if not glyph.text.isspace()]
    if not letters:
        return
    is_spaced = _is_spaced(glyphs)
    usual = _usual_gap(letters if is_spaced else glyphs)
    part: list[PdfGlyph] = []
    text: list[str] = []
    spaces: list[PdfGlyph] = []
    for glyph in glyphs:
        if glyph.text.isspace():
            spaces.append(glyph)
            continue
        if part:
            gap = _gap(part[-1], glyph)
            if not glyph.is_turned and gap > MIN_COLUMN_GAP and not _is_filled(spaces):
                yield _line(part, text)
                part, text = [], []
            elif _divides(part[-1], glyph, spaces, gap - usual, is_spaced):
                text.append(" ")
        part.append(glyph)
        text.append(glyph.text)
        spaces = []
    yield _line(part, text)


def _is_filled(spaces: Sequence[PdfGlyph]) -> bool:
    """Return True if spaces of the text itself fill the gap, as in a justified line."""
    return sum(not space.is_made for space in spaces) == 1


def _usual_gap(glyphs: list[PdfGlyph]) -> float:
    """Return the gap between letters of one word in this line: more than zero if the line is set with space."""
    gaps = [
        _gap(first, second)
        for first, second in pairwise(glyphs)
        if not first.text.isspace() and not second.text.isspace()
    ]
    return min(max(0.0, median(gaps)), MAX_USUAL_GAP) if len(gaps) > 2 else 0.0


def _is_spaced(glyphs: list[PdfGlyph]) -> bool:
    """Return True if PDFium divided the line into single letters."""
    words = "".join(glyph.text for glyph in glyphs).split()
    single = sum(len(word) == 1 and word.isalpha() for word in words)
    return len(words) >= MIN_SPACED_WORDS and single >= MIN_SINGLE_SHARE * len(words)


def _divides(first: PdfGlyph, second: PdfGlyph, spaces: Sequence[PdfGlyph], gap: float, is_spaced: bool) -> bool:
    """Return True if a space is between these letters of a line; `gap` is that beyond the line's usual one."""
    if first.is_turned or second.is_turned:
        return bool(spaces)
    is_own = any(not space.is_made for space in spaces)
    if _is_wide(first.text) and _is_wide(second.text):
        return gap > MIN_WIDE_SPACE  # a space of the text that takes no place divides nothing
    if is_own:
        return True
    if spaces:
        return not is_spaced or gap > MAX_LETTER_GAP
    is_joined = is_right_to_left(first) and is_right_to_left(second)
    return gap > (MIN_JOINED_SPACE if is_joined else MIN_SPACE) and not unicodedata.combining(second.text[0])


def _line(part: Sequence[PdfGlyph], text: Sequence[str]) -> PdfLine:
    sizes = [glyph.size for glyph in part]
    return PdfLine(
        "".join(text),
        min(glyph.left for glyph in part),
        max(glyph.right for glyph in part),
        median(glyph.base for glyph in part),
        median(sizes),
        part[0].is_turned,
    )
