"""The engines at growing sizes (row 12): built, added to, asked with and without a filter; and their peers.

    python -m tests.bench.engines [chunks ...]      by default 10000 100000 300000

The embedded engine, Qdrant (as far as 100,000), SQLite FTS5, tantivy, and plain rank-bm25 (as far as 100,000), over the
same made documents and queries as in query_latency. Memory is what the process grew by. Where a program is not here,
its line is missing.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rank_bm25 import BM25Okapi

from app.core.settings import overridden
from app.search.engines.base import EngineRequest, Filters, Model
from app.search.engines.memory.tenant_index import MemoryIndex
from tests.bench.query_latency import CHUNKS_IN_DOCUMENT, DIMENSION, WORDS_IN_CHUNK, Corpus, timed
from tests.bench.table import Row
from tests.support.shared import look_for

SIZES = (10_000, 100_000, 300_000)
QUERIES, FEW = 100, 10
MAX_ROWS_FOR_SLOW = 100_000
MODEL = Model("bench", DIMENSION)


class Line(NamedTuple):
    """Of one engine at one size; milliseconds at the median, seconds for the building."""

    chunks: int
    engine: str
    build_s: float
    memory_mb: float | None
    add_ms: float | None
    plain_ms: float
    filtered_ms: float | None


def measure(sizes: Sequence[int] = SIZES) -> list[Line]:
    lines = []
    for size in sizes:
        corpus = Corpus(size)
        queries = corpus.queries(QUERIES)
        texts = [" ".join(corpus.names[word] for word in query) for query in queries]
        noise = corpus.rng.standard_normal((QUERIES, DIMENSION)).astype(np.float32)
        vectors = noise / np.linalg.norm(noise, axis=1, keepdims=True)

        def ask(n: int, country: str | None, texts: list[str] = texts, vectors: Any = vectors) -> EngineRequest:
            return EngineRequest("", texts[n], vectors[n], MODEL, filters=Filters(country=country))

        lines.append(_embedded(corpus, ask))
        if size <= MAX_ROWS_FOR_SLOW:
            lines += _qdrant(corpus, ask)
            lines.append(_plain(corpus, queries))
        lines.append(_fts5(corpus, texts))
        lines += _tantivy(corpus, texts)
    return lines


def _embedded(corpus: Corpus, ask: Callable[[int, str | None], EngineRequest]) -> Line:
    gc.collect()
    before, began = _rss_mb(), time.perf_counter()
    index = MemoryIndex(DIMENSION)
    index.put(corpus.documents())
    built = time.perf_counter() - began
    index.search(ask(0, None))
    memory = _rss_mb() - before
    some = next(corpus.documents())
    add = timed(lambda n: index.put([some]), FEW)[0]
    plain = timed(lambda n: index.search(ask(n, None)), QUERIES)[0]
    filtered = timed(lambda n: index.search(ask(n, "AT")), QUERIES)[0]
    return Line(len(corpus.words), "millrace embedded, hybrid", built, memory, add, plain, filtered)


def _qdrant(corpus: Corpus, ask: Callable[[int, str | None], EngineRequest]) -> list[Line]:
    if look_for("qdrant") is None:
        return []
    from app.search.engines.qdrant import engine
    from app.search.engines.qdrant.writer import QdrantWriter
    from tests.support.qdrant import QdrantServer

    async def run() -> Line:
        building = await QdrantWriter.begin(MODEL, change=1)
        began, batch = time.perf_counter(), []
        for document in corpus.documents():
            batch.append(document)
            if len(batch) == 100:
                await building.put([], batch, WORDS_IN_CHUNK * CHUNKS_IN_DOCUMENT)
                batch = []
        await building.put([], batch, WORDS_IN_CHUNK * CHUNKS_IN_DOCUMENT)
        await building.take_over()
        built = time.perf_counter() - began
        some = next(corpus.documents())
        add = await _awaited(lambda n: building.put([some.id], [some], 480.0), FEW)
        plain = await _awaited(lambda n: engine._search(ask(n, None)), QUERIES)
        filtered = await _awaited(lambda n: engine._search(ask(n, "AT")), QUERIES)
        await engine.QdrantEngine().close()
        return Line(len(corpus.words), "millrace on Qdrant, hybrid", built, None, add, plain, filtered)

    with tempfile.TemporaryDirectory() as folder:
        server = QdrantServer(Path(folder))
        server.start()
        try:
            with overridden(search_engine="qdrant", qdrant_url=server.url, qdrant_timeout_s=30):
                return [asyncio.run(run())]
        finally:
            server.stop()


async def _awaited(call: Callable[[int], Any], count: int) -> float:
    took = []
    for n in range(count):
        began = time.perf_counter()
        await call(n)
        took.append(1000 * (time.perf_counter() - began))
    return float(np.percentile(took, 50))


def _texts(corpus: Corpus) -> list[str]:
    joined = corpus.words.reshape(-1, WORDS_IN_CHUNK * CHUNKS_IN_DOCUMENT)
    return [" ".join(corpus.names[word] for word in words) for words in joined]


def _plain(corpus: Corpus, queries: list[list[int]]) -> Line:
    began = time.perf_counter()
    plain = BM25Okapi(corpus.words.reshape(-1, WORDS_IN_CHUNK * CHUNKS_IN_DOCUMENT).tolist())
    built = time.perf_counter() - began
    middle = timed(lambda n: plain.get_scores(queries[n]), FEW)[0]
    return Line(len(corpus.words), "rank-bm25, keyword", built, None, None, middle, None)


def _fts5(corpus: Corpus, texts: list[str]) -> Line:
    database = sqlite3.connect(":memory:")
    database.execute("CREATE VIRTUAL TABLE page USING fts5(text, country UNINDEXED)")
    rows = [(text, ("AT", "DE", "GB", "FR")[n % 4]) for n, text in enumerate(_texts(corpus))]
    began = time.perf_counter()
    with database:
        database.executemany("INSERT INTO page VALUES (?, ?)", rows)
    built = time.perf_counter() - began

    def search(n: int, more: str = "") -> object:
        query = " OR ".join(texts[n].split())
        statement = f"SELECT rowid, bm25(page) FROM page WHERE page MATCH ? {more} ORDER BY bm25(page) LIMIT 10"
        return database.execute(statement, (query,)).fetchall()

    plain = timed(search, FEW)[0]
    filtered = timed(lambda n: search(n, "AND country = 'AT'"), FEW)[0]
    database.close()
    return Line(len(corpus.words), "SQLite FTS5, keyword", built, None, None, plain, filtered)


def _tantivy(corpus: Corpus, texts: list[str]) -> list[Line]:
    try:
        import tantivy
    except ImportError:
        return []
    schema = tantivy.SchemaBuilder().add_text_field("text", tokenizer_name="whitespace").build()
    index = tantivy.Index(schema)
    writer = index.writer(100_000_000, 1)
    whole = _texts(corpus)
    began = time.perf_counter()
    for text in whole:
        writer.add_document(tantivy.Document(text=text))
    writer.commit()
    built = time.perf_counter() - began
    index.reload()
    searcher = index.searcher()
    plain = timed(lambda n: searcher.search(index.parse_query(texts[n], ["text"]), 10).hits, QUERIES)[0]
    return [Line(len(corpus.words), "tantivy, keyword", built, None, None, plain, None)]


def _rss_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024**2


def rows(sizes: Sequence[int] = SIZES) -> list[Row]:
    return [
        Row(
            "12",
            f"{line.engine}, {line.chunks:,} chunks: query / filtered, p50",
            f"{line.plain_ms:.2f} / {_shown(line.filtered_ms)} ms",
            f"built in {line.build_s:.1f} s, one more {_shown(line.add_ms)} ms, {_shown(line.memory_mb, 0)} MB",
            "–",
        )
        for line in measure(sizes)
    ]


def _shown(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def main() -> None:
    sizes = [int(word) for word in sys.argv[1:]] or SIZES
    for row in rows(sizes):
        print(f"{row.what:75} {row.ours:20} {row.peer}")


if __name__ == "__main__":
    main()
