"""Switch of the model: the next generation is built during searches, compared, swapped, swapped back, dropped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from app.core.db import database
from app.core.errors import Cancelled, Conflict, InvalidInput, NotFound, Stale, Unavailable
from app.documents.fields import DocumentFields
from app.documents.ingest import ingest
from app.documents.ingest.draft import Draft
from app.documents.ingest.ingest import cut
from app.documents.models import DocumentVersion
from app.jobs.definition import Job
from app.jobs.ledger import commands, ends
from app.jobs.ledger.enqueue import enqueue
from app.jobs.worker.progress import Progress, ProgressPublisher
from app.search.index import chunk_vectors, generations, model_switch
from app.search.jobs import BuildGeneration, CompareGenerations, DropGeneration, SwapGeneration
from app.search.models import Chunk, ChunkVector
from tests.fakes.embeddings import FakeEmbeddings
from tests.support.databases import SettingsEnv
from tests.support.desk import TENANT, Desk, on_a_loop

NEXT = "tei/m/2"
FIRST = "wordllama/l2_supercat/256"


@pytest.fixture
def fake_embeddings(monkeypatch: pytest.MonkeyPatch, settings_env: SettingsEnv) -> Iterator[FakeEmbeddings]:
    """The next model: its vectors tell how long a text is."""
    monkeypatch.setattr(generations, "MAX_CACHE_AGE_S", 0.0)
    with FakeEmbeddings().running() as server:
        settings_env(
            next_embedder="tei", next_embedder_url=server.url, next_embedder_model="m", next_embedder_dimension=2
        )
        yield server


def _ask(desk: Desk, job: Job) -> Progress:
    return desk.claim(desk.db.transaction(lambda session: enqueue(session, job, tenant=TENANT).id))


def _run(desk: Desk, job: Job) -> dict[str, Any]:
    """Run the job as the actor of its kind does; return its result."""
    progress = _ask(desk, job)
    try:
        result = on_a_loop(_work(job, progress))
    except Exception:
        desk._finish(progress.claim, "failed")
        raise
    desk._finish(progress.claim, "succeeded", result=result)
    return result


async def _work(job: Job, progress: Progress) -> dict[str, Any]:
    match job:
        case BuildGeneration():
            return await model_switch.build(progress)
        case CompareGenerations():
            return await model_switch.compare(job, progress)
        case SwapGeneration():
            return await model_switch.swap(job, progress)
        case DropGeneration():
            return await model_switch.drop(job.name, progress)
    raise AssertionError(job)


def _searched(desk: Desk) -> str:
    return desk.db.read(generations.live)[0].generation


def _beside(desk: Desk) -> int:
    return desk.db.read(lambda session: session.scalar(sa.select(sa.func.count()).select_from(ChunkVector))) or 0


def _near(desk: Desk, length: int) -> str:
    """Which text is nearest to a question of so many letters: the new model only sees how long texts are."""
    return str(desk.find("x" * length, mode="semantic")["results"][0]["text"])


def test_model_is_switched_and_switched_back(fake_embeddings: FakeEmbeddings, desk: Desk) -> None:
    """Searches answer by the first model until the swap, by the second until the way back, and words always."""
    desk.put("mill ponds", external_id="short")
    desk.put("the heron stands in the reed " * 4, external_id="long")
    assert _searched(desk) == FIRST
    result = _run(desk, BuildGeneration())
    assert result == {"generation": NEXT, "vectors": 2, "embedded": 2}
    assert _searched(desk) == FIRST and desk.find("a bird", mode="semantic")["results"][0]["text"].startswith(
        "the heron"
    )
    desk.put("a new page that came while both are kept", external_id="new")
    assert _beside(desk) == 3
    compared = _run(desk, CompareGenerations(first=FIRST, second=NEXT, queries=("mill ponds", "bird"), limit=2))
    assert compared["queries"] == 2 and 0 <= compared["overlap"] <= 1
    assert _run(desk, SwapGeneration(name=NEXT)) == {"searched": NEXT, "kept": FIRST}
    assert _searched(desk) == NEXT and _near(desk, 10) == "mill ponds"
    desk.put("short new", external_id="after")
    assert _near(desk, 9) == "short new"
    assert desk.find("heron", mode="keyword")["total"] == 1 and desk.verify()["ok"]
    assert _run(desk, SwapGeneration()) == {"searched": FIRST, "kept": NEXT}
    assert desk.find("a bird", mode="semantic")["results"][0]["text"].startswith("the heron")
    assert desk.verify()["ok"]
    assert _run(desk, SwapGeneration(name=NEXT))["searched"] == NEXT
    assert _run(desk, DropGeneration(name=FIRST))["dropped"] == FIRST
    # What is left lies where everything lies, and is searched.
    assert _beside(desk) == 0 and _near(desk, 9) == "short new" and desk.verify()["ok"]
    rest = desk.db.read(lambda session: set(session.scalars(sa.select(Chunk.generation))))
    assert rest == {NEXT}


def test_impossible_generation_commands_are_refused(
    fake_embeddings: FakeEmbeddings, desk: Desk, settings_env: SettingsEnv
) -> None:
    desk.put("mill", external_id="1")
    with pytest.raises(NotFound):
        _run(desk, SwapGeneration(name="nothing/1"))
    with pytest.raises(NotFound):
        _run(desk, SwapGeneration())
    _run(desk, BuildGeneration())
    with pytest.raises(Conflict, match="searched"):
        _run(desk, DropGeneration(name=FIRST))
    with pytest.raises(NotFound):
        _run(desk, CompareGenerations(first=FIRST, second="other/2"))
    settings_env(next_embedder="")
    desk = Desk(database())
    with pytest.raises(InvalidInput, match="MILLRACE_NEXT_EMBEDDER"):
        _run(desk, BuildGeneration())
    settings_env(next_embedder="wordllama")
    desk = Desk(database())
    with pytest.raises(Conflict, match="searched"):
        _run(desk, BuildGeneration())


def test_interrupted_build_resumes(
    fake_embeddings: FakeEmbeddings, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after a batch: half of it is not swapped to, the next run makes the rest, a late twin writes nothing."""
    monkeypatch.setattr(model_switch, "CHUNKS_AT_ONCE", 2)
    for n in range(6):
        desk.put(f"mill number {n}", external_id=str(n))
    progress = _ask(desk, BuildGeneration())
    fake_embeddings.wrong = lambda texts: (500, b"gone", {}) if len(fake_embeddings.batches) > 1 else None
    with pytest.raises(Unavailable):
        on_a_loop(model_switch.build(progress))
    assert _beside(desk) == 2
    fake_embeddings.wrong = lambda texts: None
    with pytest.raises(Conflict, match="not built"):
        _run(desk, SwapGeneration(name=NEXT))
    desk.db.transaction(ends.free, desk.worker_id, "gone")
    with pytest.raises(Stale):
        on_a_loop(model_switch.build(Progress(progress.claim, ProgressPublisher(lambda claim, snapshot: None))))
    again = desk.claim(progress.claim.id)
    assert on_a_loop(model_switch.build(again))["embedded"] == 4
    assert _beside(desk) == 6
    assert on_a_loop(model_switch.build(again))["embedded"] == 0  # twice is once


def test_a_cancelled_build_changes_nothing_that_is_searched(fake_embeddings: FakeEmbeddings, desk: Desk) -> None:
    desk.put("mill", external_id="1")
    progress = _ask(desk, BuildGeneration())
    desk.db.transaction(commands.cancel, TENANT, progress.claim.id)
    with pytest.raises(Cancelled):
        on_a_loop(model_switch.build(progress))
    assert _searched(desk) == FIRST and _beside(desk) == 0


def test_vectors_missed_during_an_outage_are_added_by_the_swap(fake_embeddings: FakeEmbeddings, desk: Desk) -> None:
    """Nothing that is indexed waits for a model that is not searched; the swap makes what is missing."""
    desk.put("mill ponds", external_id="1")
    _run(desk, BuildGeneration())
    fake_embeddings.wrong = lambda texts: (500, b"away", {})
    desk.put("a heron", external_id="2")
    assert _beside(desk) == 1
    fake_embeddings.wrong = lambda texts: None
    _run(desk, SwapGeneration(name=NEXT))
    assert _beside(desk) == 2 and desk.verify()["ok"]
    assert desk.find("heron", mode="semantic")["total"] == 2


def test_a_page_embedded_before_a_swap_is_not_written_without_the_searched_vector(
    fake_embeddings: FakeEmbeddings, desk: Desk
) -> None:
    """The next server was away when the page was embedded, and the swap came before it was written: once more."""
    desk.put("mill ponds", external_id="1")
    _run(desk, BuildGeneration())
    accepted = desk.give("a heron", external_id="2")
    progress = desk.claim(accepted.job.id)
    version = desk.db.read(lambda session: session.get_one(DocumentVersion, accepted.version_id))
    draft = Draft(text="a heron", fields=DocumentFields.load(version.fields))
    draft.fields.language = "en"
    cut(draft)
    fake_embeddings.wrong = lambda texts: (500, b"away", {})
    draft.vectors = on_a_loop(
        chunk_vectors.make_vectors([], {chunk.text_hash: chunk.searched for chunk in draft.chunks})
    )
    fake_embeddings.wrong = lambda texts: None
    _run(desk, SwapGeneration(name=NEXT))
    with pytest.raises(Unavailable, match="model"):
        desk.db.transaction(ingest._index, progress.claim, accepted.document_id, accepted.version_id, draft)
    assert desk.run(progress)["status"] == "indexed"
    desk.follow()
    assert desk.find("heron", mode="semantic")["total"] == 2 and desk.verify()["ok"]
