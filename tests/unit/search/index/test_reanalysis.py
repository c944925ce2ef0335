"""Documents of another analyzer: a search says that it may miss them, until a job has analysed them again."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.errors import Stale
from app.jobs.ledger import ends
from app.jobs.ledger.enqueue import enqueue
from app.jobs.worker.progress import Progress, ProgressPublisher
from app.search.engines.source import has_outdated
from app.search.index import reanalysis
from app.search.jobs import ReanalyzeDocuments
from app.search.models import Chunk
from app.search.query.search import OUTDATED
from app.search.text.analyzer import ANALYZER_VERSION, pack, packed_terms, term_hash
from tests.support.desk import Desk, on_a_loop, open_job


def _age(session: Session, version: int = 1) -> None:
    """Rows as an earlier program wrote them: with terms that no query has now, and without the column."""
    old = pack([term_hash("terms of old")])
    session.execute(sa.update(Chunk).values(terms=old, analyzer=version))
    session.execute(sa.update(Chunk).where(Chunk.ordinal == 0).values(document_terms=old))


def _rows(session: Session) -> list[tuple[object, ...]]:
    query = sa.select(Chunk.id, Chunk.terms, Chunk.document_terms).order_by(Chunk.id)
    return [tuple(row) for row in session.execute(query)]


def _reanalyze(desk: Desk) -> dict[str, object]:
    desk.db.transaction(reanalysis.request_reanalysis)
    job_id = desk.db.read(open_job, ReanalyzeDocuments.kind)
    assert job_id is not None
    progress = desk.claim(job_id)
    result = on_a_loop(reanalysis.reanalyze(progress))
    desk.db.transaction(ends.free, desk.worker_id, "the test ends")
    desk.follow()
    return result


@pytest.mark.parametrize("version", [1, ANALYZER_VERSION + 1])
def test_documents_of_another_analyzer_are_analysed_again(desk: Desk, version: int) -> None:
    for number in range(3):
        desk.put(f"# Mill {number}\n\n" + "The wheel turns. " * 150 + f"heron{number}", external_id=str(number))
    before = desk.db.read(_rows)
    assert desk.find("heron1", mode="keyword")["degraded"] == []
    desk.db.transaction(_age, version)
    answer = desk.find("heron1", mode="hybrid")
    assert answer["degraded"] == [OUTDATED]
    assert desk.find("heron1", mode="semantic")["degraded"] == []
    assert desk.db.read(reanalysis.count_outdated) == len(before)
    result = _reanalyze(desk)
    assert result == {"analyzer": ANALYZER_VERSION, "documents": 3, "chunks": len(before)}
    answer = desk.find("heron1", mode="keyword")
    assert (answer["total"], answer["degraded"]) == (1, [])
    after = desk.db.read(_rows)
    assert after == before
    assert desk.verify()["ok"]


def test_nothing_to_analyse_queues_no_job(desk: Desk) -> None:
    desk.put("the mill", external_id="1")
    desk.db.transaction(reanalysis.request_reanalysis)
    assert desk.db.read(open_job, ReanalyzeDocuments.kind) is None


def test_a_document_replaced_meanwhile_keeps_its_new_words(desk: Desk) -> None:
    """The analysis of the old text is not written over the new one, even if ids of chunks are used again."""
    desk.put("the old mill", external_id="1")
    desk.db.transaction(_age)
    outdated = desk.db.read(reanalysis._next, 0)
    analyzed = [reanalysis._analyze(row) for row in outdated]
    desk.put("the new heron", external_id="1")
    desk.db.transaction(reanalysis.request_reanalysis)
    job = desk.db.transaction(lambda session: enqueue(session, ReanalyzeDocuments(), tenant="default").id)
    claim = desk.claim(job).claim
    assert desk.db.transaction(reanalysis._write, claim, analyzed) == 0
    assert desk.find("heron", mode="keyword")["total"] == 1
    assert desk.db.read(lambda session: session.scalar(sa.select(Chunk.terms))) == packed_terms("the new heron")


def test_a_worker_that_lost_its_job_writes_nothing(desk: Desk) -> None:
    desk.put("the mill", external_id="1")
    desk.db.transaction(_age)
    desk.db.transaction(reanalysis.request_reanalysis)
    job_id = desk.db.read(open_job, ReanalyzeDocuments.kind)
    assert job_id is not None
    progress = desk.claim(job_id)
    late = progress.claim._replace(fence=progress.claim.fence - 1)
    with pytest.raises(Stale):
        on_a_loop(reanalysis.reanalyze(Progress(late, ProgressPublisher(lambda claim, snapshot: None))))
    assert desk.db.read(has_outdated)
