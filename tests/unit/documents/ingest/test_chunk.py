"""Chunks fit the model, lie where they say, and know their headings."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from app.documents.ingest.chunk import SECTION_CHARACTERS, Chunker, chunker
from app.documents.text import clean
from app.search.embedders import embedder

BLOCKS = st.sampled_from(
    ["# One", "## Two", "### Three", "Some words stand here.", "- a\n- b", "```\n# no heading\n```", "",
     "| a | b |\n|---|---|\n| 1 | 2 |", "word " * 80, "x" * 900, "漢字かな" * 60, "Ünïcödé wörds. " * 20]
)  # fmt: skip


def _chunker(tokens: int = 64, overlap: int = 12) -> Chunker:
    return chunker(embedder().tokenizer, tokens, overlap)


@settings(max_examples=60, deadline=None)
@given(st.lists(BLOCKS, max_size=12))
def test_chunks_cover_the_text(blocks: list[str]) -> None:
    """Each is its span, none is too long, in order; and every word is in one."""
    text = clean("\n\n".join(blocks))
    pieces = _chunker().chunk(text)
    tokenizer = embedder().tokenizer
    covered = [False] * len(text)
    for ordinal, piece in enumerate(pieces):
        assert piece.ordinal == ordinal
        assert text[piece.start : piece.end] == piece.text
        assert len(tokenizer.encode(piece.text, add_special_tokens=False).ids) <= 64
        covered[piece.start : piece.end] = [True] * (piece.end - piece.start)
        for heading in piece.headings:
            covered = [seen or heading in text[max(0, i - 8) : i + 8] for i, seen in enumerate(covered)]
    assert all(seen or not text[i].isalnum() for i, seen in enumerate(covered))


def test_chunk_has_the_path_of_its_headings() -> None:
    """A chunk has the path of its first own line; a `#` in code is no heading; headings alone make no chunk."""
    body = "Plain words about it. " * 20
    text = f"# Book\n\n{body}\n\n## Part\n\n{body}\n\n```\n# code\n```\n\n### Section\n\n{body}\n\n## Last\n\n{body}"
    paths = {piece.headings for piece in _chunker().chunk(text)}
    assert paths == {("Book",), ("Book", "Part"), ("Book", "Part", "Section"), ("Book", "Last")}


def test_neighbours_overlap() -> None:
    pieces = _chunker().chunk(" ".join(f"word{n}." for n in range(300)))
    assert len(pieces) > 5
    assert all(after.start < before.end for before, after in pairwise(pieces))


def test_long_text_without_breaks_is_chunked_in_linear_time() -> None:
    """The splitter gets it in sections; this would take minutes otherwise."""
    pieces = _chunker(256, 50).chunk("a" * (SECTION_CHARACTERS * 20))
    assert pieces[-1].end == SECTION_CHARACTERS * 20


def test_empty_text_has_no_chunks() -> None:
    assert _chunker().chunk("") == []
    assert [piece.text for piece in _chunker().chunk("# Only a heading")] == ["# Only a heading"]
