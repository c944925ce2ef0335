"""Kinds of job about documents."""

from __future__ import annotations

from app.jobs.definition import Job

STAGES = {"extract": 10, "chunk": 10, "embed": 60, "index": 20}


class IngestDocument(Job, kind="documents.ingest", time_limit_s=600, stages=STAGES):
    """Make a received version the one that is searched."""

    document_id: int
    version_id: int
