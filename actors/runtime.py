"""Actors of definitions: the function that runs a kind of job.

    @job_actor(IngestDocument)
    async def ingest_document(job: IngestDocument, progress: Progress) -> None:
        await ingest(job.document_id, progress)

An `async def` waits on the worker's loop; a plain `def` computes in a sandbox. One module may hold definition and
actor: the decorator only registers the function, and a worker makes the actor of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from app.jobs import functions
from app.jobs.definition import Job

F = TypeVar("F", bound=Callable[..., Any])


def job_actor(definition: type[Job]) -> Callable[[F], F]:
    """Declare the function as the actor of the definition's kind, and return it unchanged.

    It is called with the payload and a Progress, and may return a dictionary, the job's result.
    """

    def decorate(function: F) -> F:
        functions.declare(definition, function)
        return function

    return decorate
