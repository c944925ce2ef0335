"""Search quality (row 13): nDCG@10 on judged collections, by the program's own chunks, analyzer, vectors and fusion.

    python -m tests.bench.quality [collection …]

Collections lie in MILLRACE_IR_DIR (else ../shared/ir), each as corpus.jsonl.gz (id, title, text),
queries.jsonl (id, text) and qrels.tsv (query, document, grade). The peer is rank-bm25 as it comes: words in lower case.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import math
import os
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rank_bm25 import BM25Okapi

from app.core.settings import overridden
from app.documents.fields import DocumentFields
from app.documents.ingest.draft import Draft
from app.documents.ingest.ingest import cut
from app.search.embedders import embedder
from app.search.engines.base import DEFAULT_FUSION, Fusion, Mode, Model
from app.search.engines.memory.tenant_index import MemoryIndex
from app.search.engines.source import IndexedChunk, IndexedDocument
from app.search.index.write import pack_vectors
from app.search.query.question import Question
from app.search.query.search import make_request
from tests.bench.table import Row
from tests.support.desk import encode
from tests.support.shared import BESIDE

DEPTH, RECALL_DEPTH = 10, 100
ROOT = Path(os.environ.get("MILLRACE_IR_DIR") or Path(__file__).parents[3] / "shared" / "ir")
MINILM = BESIDE / "models" / "minilm"
TARGETS_OF_MINILM = {"cranfield": 0.42, "med": 0.80}
TARGETS = {"keyword": {"cranfield": 0.362, "med": 0.705}, "hybrid": {"cranfield": 0.375, "med": 0.73}}


@dataclass(frozen=True)
class Collection:
    name: str
    documents: list[dict[str, str]]
    queries: list[dict[str, str]]
    grades: dict[str, dict[str, int]]

    @classmethod
    def load(cls, folder: Path) -> Collection:
        grades: dict[str, dict[str, int]] = defaultdict(dict)
        for line in (folder / "qrels.tsv").read_text().splitlines():
            query, document, grade = line.split("\t")
            grades[query][document] = int(grade)
        with gzip.open(folder / "corpus.jsonl.gz", "rt") as corpus:
            documents = [json.loads(line) for line in corpus]
        queries = [json.loads(line) for line in (folder / "queries.jsonl").read_text().splitlines()]
        return cls(folder.name, documents, queries, grades)

    def score(self, rank: Callable[[str], Iterable[str]]) -> Score:
        """Mean nDCG@10 and Recall@100 over the judged queries; gains are the grades."""
        rankings = [(list(rank(query["text"])), self.grades[query["id"]]) for query in self.queries]
        judged = [ranking for ranking in rankings if any(grade > 0 for grade in ranking[1].values())]
        gains = [_ndcg(ranked, grades) for ranked, grades in judged]
        recalls = [_recall(ranked, grades) for ranked, grades in judged]
        return Score(sum(gains) / len(judged), sum(recalls) / len(judged))


class Score(NamedTuple):
    ndcg: float
    recall: float


def _recall(ranked: list[str], grades: dict[str, int]) -> float:
    relevant = {document for document, grade in grades.items() if grade > 0}
    return len(relevant & set(ranked[:RECALL_DEPTH])) / len(relevant)


def _ndcg(ranked: list[str], grades: dict[str, int]) -> float:
    ideal = sorted((grade for grade in grades.values() if grade > 0), reverse=True)
    gains = [max(grades.get(document, 0), 0) for document in ranked]
    return _dcg(gains) / _dcg(ideal)


def _dcg(gains: list[int]) -> float:
    return sum(gain / math.log2(place + 2) for place, gain in enumerate(gains[:DEPTH]))


def index_of(collection: Collection) -> MemoryIndex:
    index = MemoryIndex(embedder().dimension)
    index.put(_documents(collection))
    return index


def _documents(collection: Collection) -> Iterable[IndexedDocument]:
    chunk_id = 0
    for number, document in enumerate(collection.documents, start=1):
        fields = DocumentFields(title=document["title"] or None, language="en")
        draft = Draft(text=document["text"].strip(), fields=fields)
        if not draft.text:
            continue
        cut(draft)
        vectors = pack_vectors(encode([chunk.searched for chunk in draft.chunks]))
        chunks = []
        for terms, vector in zip(draft.terms, vectors, strict=True):
            chunk_id += 1
            chunks.append(IndexedChunk(chunk_id, terms, vector, "en"))
        yield IndexedDocument(number, chunks, draft.document_terms, language="en")


def ours(collection: Collection, index: MemoryIndex, mode: Mode, fusion: Fusion) -> Score:
    def rank(text: str) -> list[str]:
        question = Question(text, mode=mode, limit=RECALL_DEPTH, fusion=fusion)
        ask = asyncio.run(make_request("bench", question, model=Model(embedder().name, embedder().dimension)))
        return [collection.documents[hit.document_id - 1]["id"] for hit in index.search(ask).hits]

    return collection.score(rank)


def peer(collection: Collection, split: Callable[[str], list[str]]) -> Score:
    """rank-bm25 on title and text as they come."""
    engine = BM25Okapi([split(f"{document['title']} {document['text']}") for document in collection.documents])
    ids = [document["id"] for document in collection.documents]
    return collection.score(
        lambda text: [ids[i] for i in np.argsort(-engine.get_scores(split(text)), kind="stable")[:RECALL_DEPTH]]
    )


def measure(names: Sequence[str]) -> dict[str, list[Score]]:
    """Return the scores of each way to rank, one a collection."""
    scores: dict[str, list[Score]] = defaultdict(list)
    for name in names:
        collection = Collection.load(ROOT / name)
        index = index_of(collection)
        scores["millrace keyword"].append(ours(collection, index, "keyword", "rrf"))
        scores["millrace semantic"].append(ours(collection, index, "semantic", "rrf"))
        scores["by reciprocal rank, hybrid"].append(ours(collection, index, "hybrid", "rrf"))
        scores["millrace hybrid"].append(ours(collection, index, "hybrid", DEFAULT_FUSION))
        scores["rank-bm25, split at blanks"].append(peer(collection, lambda text: text.lower().split()))
        scores["rank-bm25, words"].append(peer(collection, lambda text: re.findall(r"\w+", text.lower())))
    return scores


def collections() -> list[str]:
    return sorted(path.name for path in ROOT.iterdir() if (path / "qrels.tsv").exists())


def rows() -> list[Row]:
    """Compare hybrid and keyword search with plain rank-bm25, and use MiniLM too where it is installed."""
    made = _rows(TARGETS)
    if MINILM.is_dir():
        with overridden(embedder="fastembed", embedder_model=MINILM):
            made += _rows({"hybrid": TARGETS_OF_MINILM})
    return made


def _rows(targets: Mapping[str, Mapping[str, float]]) -> list[Row]:
    names = collections()
    scores = measure(names)

    def line(label: str) -> str:
        return " / ".join(f"{value.ndcg:.3f}" for value in scores[label])

    def recall(label: str) -> str:
        return " / ".join(f"{value.recall:.3f}" for value in scores[label])

    names_of = " / ".join(names)
    made = [
        Row(
            "13",
            f"Recall@100 {names_of}, keyword · semantic · hybrid, {embedder().name}",
            " · ".join(recall(f"millrace {mode}") for mode in ("keyword", "semantic", "hybrid")),
            f"rank-bm25 {recall('rank-bm25, words')}",
            "–",
        )
    ]
    for mode in targets:
        label = f"millrace {mode}"
        minimums = [targets[mode].get(name, 0.0) for name in names]
        met = all(value.ndcg >= least for value, least in zip(scores[label], minimums, strict=True))
        reach = "≥ " + " / ".join(f"{least:g}" for least in minimums)
        what = f"nDCG@10 {' / '.join(names)}, {mode}, {embedder().name}"
        made.append(Row("13", what, line(label), f"rank-bm25 {line('rank-bm25, words')}", reach, met))
    return made


def main() -> None:
    names = sys.argv[1:] or collections()
    print(f"nDCG@{DEPTH} (Recall@{RECALL_DEPTH}), embedder {embedder().name}")
    print(f"{'':28}" + "".join(f"{name:>12}" for name in names) + "   target")
    for label, values in measure(names).items():
        minimums = TARGETS.get(label.removeprefix("millrace "), {})
        targets = " / ".join(f"{minimums[name]:g}" for name in names if name in minimums)
        figures = "".join(f"{value.ndcg:12.4f} ({value.recall:.3f})" for value in values)
        print(f"{label:28}{figures}" + (f"   ≥ {targets}" if targets else ""))


if __name__ == "__main__":
    main()
