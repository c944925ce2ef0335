"""One worker's hand for tests of rooms: claims a job and runs its function here, without Redis or Dramatiq."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock
from app.core.db import Database, read
from app.core.errors import AppError
from app.core.ids import uuid7
from app.documents import catalog
from app.documents.accept.accept import About, Accepted, Content, accept
from app.documents.ingest.ingest import ingest
from app.documents.jobs import IngestDocument, ReprocessDocument
from app.jobs.ledger import claims as ledger
from app.jobs.ledger import ends, workers
from app.jobs.ledger.claims import Claim
from app.jobs.ledger.ends import End
from app.jobs.ledger.enqueue import enqueue
from app.jobs.models import JobRow
from app.jobs.worker.progress import Progress, ProgressPublisher
from app.search.embedders import Vectors, close_embedder, embedder
from app.search.engine import engine
from app.search.index.generations import followed
from app.search.index.verify import verify
from app.search.jobs import FollowIndex, VerifyIndex
from app.search.query import search as query
from app.search.query.question import Question

TENANT = "default"
T = TypeVar("T")


class Desk:
    """`give` is what the API does, `work` what a worker does, `find` what a searcher does."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.worker_id = uuid7()
        db.transaction(workers.register, self.worker_id, ["default"], 1, None)

    def give(self, body: str, *, format: Any = "markdown", tenant: str = TENANT, **about: Any) -> Accepted:
        return self.db.transaction(accept, About(**about), Content(format, body), tenant=tenant)

    def claim(self, job_id: str) -> Progress:
        claims = self.db.transaction(ledger.claim, [job_id], self.worker_id)
        return Progress(claims[0], ProgressPublisher(lambda claim, snapshot: None))

    def run(self, progress: Progress) -> dict[str, Any]:
        job = IngestDocument.model_validate(progress.claim.payload)
        force = progress.claim.kind == ReprocessDocument.kind
        return on_a_loop(ingest(job.document_id, job.version_id, progress, force=force))

    def work(self, job_id: str) -> dict[str, Any]:
        """Run the job, and write how it ended; its error is raised."""
        progress = self.claim(job_id)
        try:
            result = self.run(progress)
        except AppError as error:
            fault = {"error_type": type(error).__name__, "error_code": error.code, "error_message": error.message}
            self._finish(progress.claim, "failed", **fault)
            raise
        self._finish(progress.claim, "succeeded", result=result)
        return result

    def _finish(self, claim: Claim, state: Any, **more: Any) -> None:
        end = End(claim.id, claim.fence, claim.kind, state, state, claim.tries, clock.now(), **more)
        self.db.transaction(ends.finish, [end])

    def put(self, body: str, **about: Any) -> dict[str, Any]:
        result = self.work(self.give(body, **about).job.id)
        self.follow()
        return result

    def find(self, text: str, *, tenant: str = TENANT, **question: Any) -> dict[str, Any]:
        return on_a_loop(query.search(tenant, Question(text, **question)))

    def delete(self, document_id: str) -> None:
        self.db.transaction(catalog.delete, TENANT, document_id)
        self.follow()

    def follow(self) -> dict[str, Any] | None:
        """Run the job that brings the index up to date, where one was asked for; what it says."""
        job_id = self.db.read(open_job, FollowIndex.kind)
        if job_id is None:
            return None
        progress = self.claim(job_id)
        result = on_a_loop(_follow(progress))
        self._finish(progress.claim, "succeeded", result=result)
        return result

    def verify(self, *, repair: bool = False) -> dict[str, Any]:
        """Verify the index and return the report."""
        job = self.db.transaction(lambda session: enqueue(session, VerifyIndex(repair=repair), tenant=TENANT).id)
        progress = self.claim(job)
        result = on_a_loop(verify(progress, repair=repair))
        self._finish(progress.claim, "succeeded", result=result)
        return result


async def _follow(progress: Progress) -> dict[str, Any]:
    outcome: dict[str, Any] = {}
    for model in reversed(await read(followed)):
        outcome = await engine().follow(model, progress)
    return outcome


def on_a_loop(what: Coroutine[Any, Any, T]) -> T:
    """Run it on a new event loop that leaves no connection open; return its result."""

    async def run() -> T:
        try:
            return await what
        finally:
            await engine().close()
            await close_embedder()

    return asyncio.run(run())


def encode(texts: list[str]) -> Vectors:
    """Vectors by the embedder of the settings."""
    return on_a_loop(embedder().embed_documents(texts))


def open_job(session: Session, kind: str) -> str | None:
    query = sa.select(JobRow.id).where(JobRow.kind == kind, JobRow.state.in_(("queued", "scheduled", "retrying")))
    return session.scalar(query)
