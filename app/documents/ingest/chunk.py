"""Split stored text into chunks that fit the embedding model, each with its position and headings."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import zip_longest

from semantic_text_splitter import MarkdownSplitter
from tokenizers import Tokenizer

# The splitter's time grows with the square of unbroken text, so it receives the text in sections.
SECTION_CHARACTERS = 10_000

_HEADING = re.compile(r"^(#{1,6})[ \t]+(.+?)[ \t]*#*[ \t]*$")
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})")


@dataclass(frozen=True, slots=True)
class Piece:
    """`text` is `stored[start:end]`; `headings` is the path to it, outermost first."""

    ordinal: int
    text: str
    start: int
    end: int
    headings: tuple[str, ...]


class Chunker:
    """Cuts Markdown at its own borders into pieces of at most `tokens`; neighbours share `overlap` tokens."""

    def __init__(self, tokenizer: Tokenizer, tokens: int, overlap: int) -> None:
        overlap = min(overlap, tokens - 1)
        self._splitter = MarkdownSplitter.from_huggingface_tokenizer(tokenizer, tokens, overlap=overlap)

    def chunk(self, text: str) -> list[Piece]:
        offsets, paths = _outline(text)
        pieces: list[Piece] = []
        for base, section in _sections(text):
            for offset, cut in self._splitter.chunk_indices(section):
                start = base + offset
                body = _body_start(text, start, start + len(cut))
                path = paths[bisect_right(offsets, start if body is None else body)]
                pieces.append(Piece(len(pieces), cut, start, start + len(cut), path))
        body_pieces = [piece for piece, after in zip_longest(pieces, pieces[1:]) if not _is_title(piece, after)]
        return [replace(piece, ordinal=ordinal) for ordinal, piece in enumerate(body_pieces)]


@lru_cache(maxsize=4)
def chunker(tokenizer: Tokenizer, tokens: int, overlap: int) -> Chunker:
    """Return the chunker; cached, since making one copies the tokenizer."""
    return Chunker(tokenizer, tokens, overlap)


def _sections(text: str) -> Iterator[tuple[int, str]]:
    """Yield the text in consecutive parts, cut before a heading, else a paragraph, a line, a word."""
    start = 0
    while len(text) - start > SECTION_CHARACTERS:
        end = start + SECTION_CHARACTERS
        least = start + SECTION_CHARACTERS // 2
        for border in ("\n#", "\n\n", "\n", " "):
            position = text.rfind(border, least, end)
            if position > 0:
                end = position + 1
                break
        yield start, text[start:end]
        start = end
    yield start, text[start:]


def _headings(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield (offset, level, title) of each heading outside of code."""
    at, fence = 0, ""
    for line in text.split("\n"):
        mark = _FENCE.match(line)
        if mark and not fence:
            fence = mark.group(1)
        elif mark and mark.group(1).startswith(fence):
            fence = ""
        elif not fence and (heading := _HEADING.match(line)):
            yield at, len(heading.group(1)), heading.group(2)
        at += len(line) + 1


def _outline(text: str) -> tuple[list[int], list[tuple[str, ...]]]:
    """Return the offsets of the headings, and the heading path after the first 0, 1, 2 … of them."""
    offsets: list[int] = []
    paths: list[tuple[str, ...]] = [()]
    stack: list[tuple[int, str]] = []
    for offset, level, title in _headings(text):
        while stack and stack[-1][0] >= level:
            stack.pop()
        stack.append((level, title))
        offsets.append(offset)
        paths.append(tuple(title for _, title in stack))
    return offsets, paths


def _body_start(text: str, start: int, end: int) -> int | None:
    """Return the start of the piece's own text after its opening headings; None if it is all headings."""
    while start < end:
        line_end = text.find("\n", start, end)
        line_end = end if line_end < 0 else line_end
        line = text[start:line_end]
        if line.strip() and not _HEADING.match(line):
            return start
        start = line_end + 1
    return None


def _is_title(piece: Piece, after: Piece | None) -> bool:
    """Return True if the piece consists only of headings that also are in the path of the next piece."""
    if after is None or _body_start(piece.text, 0, len(piece.text)) is not None:
        return False
    return all(title in after.headings for _, _, title in _headings(piece.text))
