"""Indexing: a page again (row 14), and how much of many pages' time is not embedding (row 15).

    python -m tests.bench.indexing [pages]

On SQLite, by the jobs' own functions. Row 15 by the batch job: with the built-in model, whose embedding is next to
nothing, and where it is at hand with MiniLM, which stands for the models that people run.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from app.core.blobs import blobs
from app.core.db import close_database, database
from app.core.migrate import upgrade
from app.core.settings import overridden
from app.documents.ingest import batch
from app.documents.jobs import BatchDocuments
from app.jobs.ledger.enqueue import enqueue
from app.search.embedders import embedder
from tests.bench.table import Row, quantile
from tests.support.desk import TENANT, Desk
from tests.support.shared import BESIDE

PAGES, PAGES_OF_TRANSFORMER = 10_000, 600
PARAGRAPHS = 100
REPEATS = 5
MINILM = BESIDE / "models" / "minilm"


@contextmanager
def _desk(**settings: object) -> Iterator[Desk]:
    with tempfile.TemporaryDirectory() as folder, overridden(data_dir=folder, **settings):
        close_database()
        upgrade(database())
        try:
            yield Desk(database())
        finally:
            close_database()


def again() -> tuple[float, float, float, int]:
    """Milliseconds of a first index, of the same again, of one changed paragraph; and what that embeds."""
    dice = np.random.default_rng(3)
    words = [f"word{n}" for n in range(4000)]

    def paragraph() -> str:
        return " ".join(dice.choice(words, 90))

    first: list[float] = []
    same: list[float] = []
    changed: list[float] = []
    embedded = 0
    with _desk() as desk:
        for number in range(REPEATS):
            page = [paragraph() for _ in range(PARAGRAPHS)]
            for took, body in ((first, page), (same, page), (changed, [*page[:50], paragraph(), *page[51:]])):
                job = desk.give("\n\n".join(body), url=f"https://example.com/{number}").job.id
                began = time.perf_counter()
                embedded = desk.work(job)["embedded"]
                took.append(1000 * (time.perf_counter() - began))
    return quantile(first, 0.5), quantile(same, 0.5), quantile(changed, 0.5), embedded


def many(pages: int, **settings: object) -> tuple[float, float]:
    """Seconds of a batch of so many pages, and of the embedding calls among them."""
    dice = np.random.default_rng(5)
    words = [f"word{n}" for n in range(20_000)]
    bodies = ({"url": f"https://example.com/{n}", "text": " ".join(dice.choice(words, 150))} for n in range(pages))
    with _desk(**settings) as desk:
        data = b"".join(json.dumps(body).encode() + b"\n" for body in bodies)
        blob = asyncio.run(blobs().put(data))
        job = BatchDocuments(blob_key=blob.key, lines=pages)
        job_id = desk.db.transaction(lambda session: enqueue(session, job, tenant=TENANT).id)
        progress = desk.claim(job_id)
        spent, encode = [0.0], embedder().encode  # type: ignore[attr-defined]

        def timed(texts: list[str]) -> Any:
            began = time.perf_counter()
            try:
                return encode(texts)
            finally:
                spent[0] += time.perf_counter() - began

        embedder().encode = timed  # type: ignore[attr-defined]
        try:
            began = time.perf_counter()
            asyncio.run(batch.index_batch(job, progress))
            return time.perf_counter() - began, spent[0]
        finally:
            embedder().encode = encode  # type: ignore[attr-defined]


def rows(pages: int = PAGES) -> list[Row]:
    first, same, changed, embedded = again()
    what = f"an unchanged page of {PARAGRAPHS} paragraphs again, over its first index"
    made = [
        Row(
            "14",
            what,
            f"{same:.1f} of {first:.0f} ms: {first / same:.0f} x",
            "–",
            "≥ 20 x, 0 embedded",
            first >= 20 * same,
        ),
        Row("14", "one paragraph of it changed", f"{changed:.0f} ms, {embedded} chunks embedded", "–", "–"),
    ]
    whole, embedding = many(pages)
    beyond = 1 - embedding / whole
    rate = f"{whole:.0f} s, {pages / whole:.0f} a second"
    made.append(Row("15", f"{pages:,} pages by one batch, built-in model", rate, f"{beyond:.0%} is not embedding", "–"))
    if Path(MINILM).is_dir():
        whole, embedding = many(PAGES_OF_TRANSFORMER, embedder="fastembed", embedder_model=MINILM)
        beyond = 1 - embedding / whole
        summary = f"{whole:.0f} s, {beyond:.0%} is not embedding"
        made.append(
            Row("15", f"{PAGES_OF_TRANSFORMER:,} pages by one batch, MiniLM", summary, "–", "≤ 25 %", beyond <= 0.25)
        )
    return made


def main() -> None:
    for row in rows(int(sys.argv[1]) if len(sys.argv) > 1 else PAGES):
        print(f"{row.number}  {row.what:65} {row.ours:35} {row.peer:25} {row.target}")


if __name__ == "__main__":
    main()
