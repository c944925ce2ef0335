"""A document as a caller sends it in JSON, alone or as one line of a batch."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from app.core.errors import InvalidInput
from app.documents.accept.accept import About, Content
from app.documents.text import scrub

MAX_METADATA_BYTES = 64 * 1024


class DocumentRequest(BaseModel):
    """One of markdown, text and html; or a url alone, which is fetched. `external_id` is a key of the caller."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"url": "https://example.org/prices", "markdown": "# Prices", "tags": ["shop"]}]
        }
    )

    url: str | None = None
    external_id: Annotated[str, Field(max_length=512)] | None = None
    markdown: str | None = None
    text: str | None = None
    html: str | None = None
    title: str | None = None
    description: str | None = None
    language: Annotated[str, Field(max_length=35)] | None = None
    country: Annotated[str, Field(max_length=64)] | None = None
    is_mobile: bool = False
    tags: Annotated[list[Annotated[str, Field(max_length=100)]], Field(max_length=100)] = []
    metadata: dict[str, Any] = {}
    source: Annotated[str, Field(max_length=64)] = "api"
    collection: Annotated[str, Field(max_length=100)] | None = None

    def about(self) -> About:
        metadata = scrub(self.metadata)  # rejects deep nesting before other code recurses into it
        if len(json.dumps(metadata)) > MAX_METADATA_BYTES:
            raise InvalidInput(f"metadata: at most {MAX_METADATA_BYTES} bytes", code="metadata_size")
        return About(
            url=self.url,
            external_id=self.external_id,
            title=self.title,
            description=self.description,
            language=self.language,
            country=self.country,
            is_mobile=self.is_mobile,
            tags=tuple(self.tags),
            metadata=metadata,
            source=self.source,
            collection=self.collection,
        )

    def content(self) -> Content | None:
        """Return the content; None if the page must be fetched. Raises InvalidInput for several bodies, or neither body
        nor URL."""
        bodies = [
            Content(name, body) for name in ("markdown", "text", "html") if (body := getattr(self, name)) is not None
        ]
        if len(bodies) > 1:
            raise InvalidInput("send only one of markdown, text and html", code="more_than_one_body")
        if not bodies and self.url is None:
            raise InvalidInput("send markdown, text or html, or the url of a page to fetch", code="empty_document")
        return bodies[0] if bodies else None
