"""Answers of extraction, checked: they come from a process that has read foreign bytes."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.core.errors import InvalidInput

M = TypeVar("M", bound="ExtractedPage")

_Offset = Annotated[int, Field(ge=0, le=2**31 - 1)]
MAX_ATTACHMENTS = 1_000


class _Answer(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class ExtractedSpan(_Answer):
    number: _Offset
    start: _Offset
    end: _Offset


class ExtractedAttachment(_Answer):
    name: str
    media_type: str
    path: str


class ExtractedPage(_Answer):
    """The answer of extract_html."""

    title: str | None = None
    description: str | None = None
    language: str | None = None


class ExtractedFile(ExtractedPage):
    """The answer of extract_file."""

    metadata: dict[str, Any]
    pages: list[ExtractedSpan]
    attachments: Annotated[list[ExtractedAttachment], Field(max_length=MAX_ATTACHMENTS)]
    ocr: bool


def check_answer(kind: type[M], answer: Any) -> M:
    """Return the answer of a parser. Raises InvalidInput if it has another shape."""
    try:
        return kind.model_validate(answer)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"]))
        reason = f"its parser gave a broken answer: {place}: {fault['msg']}"
        raise InvalidInput(reason, code="broken_document") from error
