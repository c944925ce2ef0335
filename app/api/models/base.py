"""Base of the documented answers: their fields, the pages of lists, times."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, Field

# A time in UTC, such as 2026-01-31T12:00:00.123456Z.
Timestamp = Annotated[datetime, Field(description="RFC 3339, in UTC.")]
Number = Annotated[str, Field(pattern=r"^[0-9]+$", description="A number of up to 19 digits, as text.")]
JsonObject = dict[str, Any]


class ResponseModel(BaseModel):
    """Base of all documented answers.

    These models document. Routes send plain JSON, so no answer is validated twice on its way out; the tests validate
    every answer they get against the OpenAPI document. A field without a default is in every answer; one with a
    default may be absent.
    """


class ListPage(ResponseModel):
    """Base of all lists: a page, and the cursor of the next one."""

    data: list[Any]
    next_cursor: str | None = Field(..., description="Pass it as `cursor` to get the next page; null on the last page.")
    has_more: bool


def documented(model: Any, description: str = "") -> dict[str, Any]:
    """Return an entry of a route's `responses` for a JSON answer of this model."""
    return {"model": model} | ({"description": description} if description else {})
