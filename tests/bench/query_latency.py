"""Query latency (row 12): 100,000 chunks in the embedded engine, hybrid with a filter, and keyword and its peers.

    python -m tests.bench.query_latency [chunks]

Texts are drawn from a vocabulary with the frequencies of natural language; queries are three to six of its words.
Peers in the same run: rank-bm25 on the same terms, and tantivy where it is installed.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from rank_bm25 import BM25Okapi

from app.search.engines.base import EngineRequest, Filters, Mode, Model
from app.search.engines.memory.tenant_index import MemoryIndex
from app.search.engines.source import IndexedChunk, IndexedDocument
from app.search.text.analyzer import pack, term_hash
from tests.bench.table import Row

CHUNKS = 100_000
WORDS = 60_000
WORDS_IN_CHUNK = 120
CHUNKS_IN_DOCUMENT = 4
DIMENSION = 256
QUERIES = 200
PEER_QUERIES = 10
COUNTRIES = ("AT", "DE", "GB", "FR")


class Corpus:
    def __init__(self, chunks: int) -> None:
        self.rng = np.random.default_rng(7)
        ranks = np.arange(1, WORDS + 1)
        self.chance = 1 / (ranks + 2.7)
        self.chance /= self.chance.sum()
        self.names = [f"w{n}" for n in range(WORDS)]
        self.hashes = np.array([term_hash(name) for name in self.names], np.uint32)
        self.words = self.rng.choice(WORDS, (chunks, WORDS_IN_CHUNK), p=self.chance)
        vectors = self.rng.standard_normal((chunks, DIMENSION)).astype(np.float32)
        self.vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def documents(self) -> Iterator[IndexedDocument]:
        for first in range(0, len(self.words), CHUNKS_IN_DOCUMENT):
            rows = range(first, min(first + CHUNKS_IN_DOCUMENT, len(self.words)))
            chunks = [
                IndexedChunk(row + 1, pack(self.hashes[self.words[row]].tolist()), self.vectors[row].tobytes(), "xx")
                for row in rows
            ]
            terms = pack(self.hashes[self.words[first : first + CHUNKS_IN_DOCUMENT]].ravel().tolist())
            yield IndexedDocument(
                first + 1, chunks, terms, country=COUNTRIES[first // CHUNKS_IN_DOCUMENT % len(COUNTRIES)]
            )

    def queries(self, count: int) -> list[list[int]]:
        """Words as people ask for them: rarely the commonest hundred, which are stop words."""
        sizes = self.rng.integers(3, 7, count)
        chance = self.chance[100:] / self.chance[100:].sum()
        return [(100 + self.rng.choice(WORDS - 100, size, p=chance)).tolist() for size in sizes]


def timed(call: Callable[[int], object], count: int) -> tuple[float, float]:
    """p50 and p95 in milliseconds."""
    took = []
    for n in range(count):
        started = time.perf_counter()
        call(n)
        took.append(1000 * (time.perf_counter() - started))
    return float(np.percentile(took, 50)), float(np.percentile(took, 95))


def measure(chunks: int = CHUNKS) -> dict[str, tuple[float, float]]:
    """p50 and p95 in milliseconds of each kind of query, and of the peers."""
    corpus = Corpus(chunks)
    index = MemoryIndex(DIMENSION)
    index.put(list(corpus.documents()))
    queries = corpus.queries(QUERIES)
    noise = corpus.rng.standard_normal((QUERIES, DIMENSION)).astype(np.float32)
    vectors = noise / np.linalg.norm(noise, axis=1, keepdims=True)
    model = Model("bench", DIMENSION)

    def ask(mode: Mode, filters: Filters, n: int) -> object:
        text = " ".join(corpus.names[word] for word in queries[n])
        return index.search(EngineRequest("bench", text, vectors[n], model, mode=mode, filters=filters))

    timings: dict[str, tuple[float, float]] = {}
    for label, filters in (("", Filters()), (", filter (a quarter)", Filters(country="AT"))):
        modes: tuple[Mode, ...] = ("hybrid", "semantic", "keyword")
        timings |= {f"{mode}{label}": timed(partial(ask, mode, filters), QUERIES) for mode in modes}
    timings["keyword scores alone"] = timed(
        lambda n: index.bm25.match(Counter(corpus.hashes[queries[n]].tolist())), QUERIES
    )
    return timings | dict(_peers(corpus, queries))


def rows(chunks: int = CHUNKS) -> list[Row]:
    """Return the rows for hybrid search with a filter and for keyword search with its peers."""
    timings = measure(chunks)
    middle, high = timings["hybrid, filter (a quarter)"]
    what = f"hybrid query with filter, {chunks:,} chunks, p50 / p95"
    made = [Row("12", what, f"{middle:.1f} / {high:.1f} ms", "–", "≤ 8 / ≤ 15 ms", middle <= 8 and high <= 15)]
    scores, whole, plain = (
        timings["keyword scores alone"][0],
        timings["keyword"][0],
        timings["rank-bm25, same documents"][0],
    )
    other = timings.get("tantivy, same documents")
    peers = f"rank-bm25 {plain:.0f} ms" + (f", tantivy {other[0]:.2f} ms" if other else "")
    ours = f"scores {scores:.2f} ms, whole query {whole:.2f} ms; {plain / scores:.0f} x faster than rank-bm25"
    met = plain >= 150 * scores and (other is None or scores <= 3 * other[0])
    return [*made, Row("12", "keyword, p50", ours, peers, "scores ≤ 3 x tantivy, ≥ 150 x rank-bm25", met)]


def main() -> None:
    print("to reach: hybrid with a filter p50 8, p95 15 ms; keyword at most 3 x tantivy, 150 x faster than rank-bm25")
    for label, (middle, high) in measure(int(sys.argv[1]) if len(sys.argv) > 1 else CHUNKS).items():
        print(f"{label:32} p50 {middle:9.2f} ms   p95 {high:9.2f} ms")


def _peers(corpus: Corpus, queries: list[list[int]]) -> Iterator[tuple[str, tuple[float, float]]]:
    joined = corpus.words.reshape(-1, WORDS_IN_CHUNK * CHUNKS_IN_DOCUMENT)
    plain = BM25Okapi(joined.tolist())
    yield "rank-bm25, same documents", timed(lambda n: plain.get_scores(queries[n]), PEER_QUERIES)
    try:
        import tantivy
    except ImportError:
        return
    schema = tantivy.SchemaBuilder().add_text_field("text", tokenizer_name="whitespace").build()
    index = tantivy.Index(schema)
    writer = index.writer(100_000_000, 1)
    for words in joined:
        writer.add_document(tantivy.Document(text=" ".join(corpus.names[word] for word in words)))
    writer.commit()
    index.reload()
    searcher = index.searcher()

    def search(n: int) -> object:
        text = " ".join(corpus.names[word] for word in queries[n])
        return searcher.search(index.parse_query(text, ["text"]), 10).hits

    yield "tantivy, same documents", timed(search, QUERIES)


if __name__ == "__main__":
    main()
