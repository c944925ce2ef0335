"""Snippets: the lines of a chunk that show its matching words, with their positions."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from app.search.text.analyzer import term_hash, terms_of_words
from app.search.text.words import words

LENGTH = 240


@dataclass(frozen=True, slots=True)
class Snippet:
    """`highlights` are (start, end) in characters of `text`, which begins at `start` of the chunk."""

    text: str
    start: int
    highlights: list[tuple[int, int]]


def snippet(text: str, terms: Collection[int], language: str | None, *, length: int = LENGTH) -> Snippet:
    """Return the window of the text with the most different terms, then the most words, then the earliest."""
    searched = set(terms)
    listed = list(words(text))
    hashes = [term_hash(term) for term in terms_of_words(listed, language)]
    hits = sorted(
        (word.start, word.end, value) for word, value in zip(listed, hashes, strict=True) if value in searched
    )
    start, end = _window(text, hits, length)
    spans = [(max(a, start) - start, b - start) for a, b, _ in hits if start <= a and b <= end]
    return Snippet(text[start:end], start, _join_spans(spans))


def _window(text: str, hits: list[tuple[int, int, int]], length: int) -> tuple[int, int]:
    if not hits or len(text) <= length:
        return _edges(text, 0, length)
    best, anchor, first = (-1, -1), 0, 0
    inside: dict[int, int] = {}
    for last, (_, end, value) in enumerate(hits):
        inside[value] = inside.get(value, 0) + 1
        while first < last and end - hits[first][0] > length:
            gone = hits[first][2]
            inside[gone] -= 1
            if not inside[gone]:
                del inside[gone]
            first += 1
        if (len(inside), last - first) > best:
            best, anchor = (len(inside), last - first), hits[first][0]
            spread = end - anchor
    return _edges(text, max(0, anchor - (length - min(spread, length)) // 2), length)


def _edges(text: str, start: int, length: int) -> tuple[int, int]:
    """Return the window moved to nearby borders of words."""
    end = min(len(text), start + length)
    start = max(0, min(start, end - length))
    if start > 0:
        space = text.find(" ", start, min(start + 20, end))
        start = space + 1 if space >= 0 else start
    if end < len(text):
        space = text.rfind(" ", max(end - 20, start), end)
        end = space if space > start else end
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def _join_spans(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the spans (pairs of characters) with overlapping ones joined."""
    joined: list[tuple[int, int]] = []
    for start, end in spans:
        if joined and start < joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined
