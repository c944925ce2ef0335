"""Letters of a PDF, and the order in which those written from right to left are read."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise, zip_longest
from typing import NamedTuple

# Stands at the end of a line whose last word continues in the next one.
DIVISION = "\xad"


class PdfGlyph(NamedTuple):
    """A character with its place in points; `left` to `right` is its advance width. `is_made`: PDFium inserted it."""

    text: str
    is_made: bool
    left: float
    right: float
    base: float
    size: float
    is_turned: bool


def in_reading_order(glyphs: list[PdfGlyph]) -> list[PdfGlyph]:
    """Return a line with its right-to-left words in the order of reading.

    Some programs write them as they stand on the page, from left to right, a word or the whole line.
    """
    if not any(is_right_to_left(glyph) for glyph in glyphs):
        return glyphs
    words = [list(word) for _, word in groupby(glyphs, lambda glyph: glyph.text.isspace())]
    words = [[glyph for run in _runs(word) for glyph in _turned_if_ascending(run)] for word in words]
    letters = [glyph for glyph in glyphs if glyph.text.isalpha()]
    if sum(map(is_right_to_left, letters)) * 2 > len(letters) and _is_ascending([word[0] for word in words]):
        words = _turned_line(words)
    return [glyph for word in words for glyph in word]


def is_right_to_left(glyph: PdfGlyph) -> bool:
    return unicodedata.bidirectional(glyph.text[0]) in ("R", "AL")


def _runs(word: Sequence[PdfGlyph]) -> Iterator[list[PdfGlyph]]:
    """Yield the parts of a word that are of one direction; marks belong to the letter before them."""
    run: list[PdfGlyph] = []
    for glyph in word:
        is_mark = unicodedata.combining(glyph.text[0]) > 0
        if run and not is_mark and is_right_to_left(run[0]) != is_right_to_left(glyph):
            yield run
            run = []
        run.append(glyph)
    if run:
        yield run


def _turned_if_ascending(run: list[PdfGlyph]) -> list[PdfGlyph]:
    if not is_right_to_left(run[0]) or not _is_ascending(run):
        return run
    clusters: list[list[PdfGlyph]] = []
    for glyph in run:  # parts of a ligature have one place, and are in order
        is_part = clusters and (
            (glyph.left, glyph.right) == (clusters[-1][-1].left, clusters[-1][-1].right)
            or unicodedata.combining(glyph.text[0])
        )
        if is_part:
            clusters[-1].append(glyph)
        else:
            clusters.append([glyph])
    return [glyph for cluster in reversed(clusters) for glyph in cluster]


def _is_ascending(glyphs: Sequence[PdfGlyph]) -> bool:
    """Return True if most of the letters stand to the right of the one before."""
    steps = [second.left - first.left for first, second in pairwise(glyphs) if second.left != first.left]
    return sum(step > 0 for step in steps) * 2 > len(steps)


def _turned_line(words: list[list[PdfGlyph]]) -> list[list[PdfGlyph]]:
    """Return the words from right to left; words of the other direction keep their order among themselves."""
    spaces = [word for word in words if word[0].text.isspace()]
    texts = [word for word in words if not word[0].text.isspace()]
    turned: list[list[PdfGlyph]] = []
    for others, group in groupby(reversed(texts), _is_other):
        run = list(group)
        turned += reversed(run) if others else run
    return [part for pair in zip_longest(turned, reversed(spaces[-len(texts) + 1 :])) for part in pair if part]


def _is_other(word: list[PdfGlyph]) -> bool:
    """Return True for a word or number that is read from left to right."""
    return any(glyph.text.isalnum() for glyph in word) and not any(map(is_right_to_left, word))
