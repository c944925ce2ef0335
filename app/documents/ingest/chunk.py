"""Stored text to chunks: pieces that fit the embedding model, each with its place in the text and its headings."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import zip_longest

from semantic_text_splitter import MarkdownSplitter
from tokenizers import Tokenizer

# The splitter's time grows with the square of what has no break, so it gets the text in sections.
SECTION_CHARACTERS = 10_000

_HEADING = re.compile(r"^(#{1,6})[ \t]+(.+?)[ \t]*#*[ \t]*$")
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})")


@dataclass(frozen=True, slots=True)
class Piece:
    """`text` is `stored[start:end]`; `headings` lead to it, outermost first."""

    ordinal: int
    text: str
    start: int
    end: int
    headings: tuple[str, ...]


class Chunker:
    """Cuts Markdown at its own borders into pieces of at most `tokens`; neighbours share `overlap` of them."""

    def __init__(self, tokenizer: Tokenizer, tokens: int, overlap: int) -> None:
        overlap = min(overlap, tokens - 1)
        self._splitter = MarkdownSplitter.from_huggingface_tokenizer(tokenizer, tokens, overlap=overlap)

    def chunk(self, text: str) -> list[Piece]:
        offsets, paths = _outline(text)
        found: list[Piece] = []
        for base, section in _sections(text):
            for offset, cut in self._splitter.chunk_indices(section):
                start = base + offset
                body = _body_start(text, start, start + len(cut))
                path = paths[bisect_right(offsets, start if body is None else body)]
                found.append(Piece(len(found), cut, start, start + len(cut), path))
        kept = [piece for piece, after in zip_longest(found, found[1:]) if not _is_title(piece, after)]
        return [replace(piece, ordinal=ordinal) for ordinal, piece in enumerate(kept)]


@lru_cache(maxsize=4)
def chunker(tokenizer: Tokenizer, tokens: int, overlap: int) -> Chunker:
    """Making one copies the tokenizer, so it is kept."""
    return Chunker(tokenizer, tokens, overlap)


def _sections(text: str) -> Iterator[tuple[int, str]]:
    """The text in consecutive parts, cut before a heading, else a paragraph, a line, a word."""
    start = 0
    while len(text) - start > SECTION_CHARACTERS:
        end = start + SECTION_CHARACTERS
        least = start + SECTION_CHARACTERS // 2
        for border in ("\n#", "\n\n", "\n", " "):
            found = text.rfind(border, least, end)
            if found > 0:
                end = found + 1
                break
        yield start, text[start:end]
        start = end
    yield start, text[start:]


def _headings(text: str) -> Iterator[tuple[int, int, str]]:
    """(offset, level, title) of each heading outside of code."""
    at, fence = 0, ""
    for line in text.split("\n"):
        mark = _FENCE.match(line)
        if mark and not fence:
            fence = mark.group(1)
        elif mark and mark.group(1).startswith(fence):
            fence = ""
        elif not fence and (found := _HEADING.match(line)):
            yield at, len(found.group(1)), found.group(2)
        at += len(line) + 1


def _outline(text: str) -> tuple[list[int], list[tuple[str, ...]]]:
    """The headings' offsets, and the path after none, one, two … of them."""
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
    """Where the piece's own text begins, after the headings it opens with; None where it is all headings."""
    while start < end:
        line_end = text.find("\n", start, end)
        line_end = end if line_end < 0 else line_end
        line = text[start:line_end]
        if line.strip() and not _HEADING.match(line):
            return start
        start = line_end + 1
    return None


def _is_title(piece: Piece, after: Piece | None) -> bool:
    """Whether the piece is nothing but headings that lead to the next one, and so stand in its path."""
    if after is None or _body_start(piece.text, 0, len(piece.text)) is not None:
        return False
    return all(title in after.headings for _, _, title in _headings(piece.text))
