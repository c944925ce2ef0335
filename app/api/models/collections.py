"""Answers about collections."""

from __future__ import annotations

from pydantic import Field

from app.api.models.base import ListPage, ResponseModel, Timestamp


class CollectionSummary(ResponseModel):
    """A collection and the counts of its documents."""

    name: str
    title: str
    description: str
    documents: int
    documents_indexed: int = Field(..., description="Number of documents that searches can find.")
    chunks: int
    created_at: Timestamp
    updated_at: Timestamp


class CollectionPage(ListPage):
    """A page of collections."""

    data: list[CollectionSummary]
