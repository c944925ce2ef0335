"""Fields of a document: as a caller sent them, completed from its content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self


@dataclass(slots=True)
class DocumentFields:
    """The fields that a version gives to its document when it becomes current."""

    title: str | None = None
    description: str | None = None
    language: str | None = None
    country: str | None = None
    is_mobile: bool = False
    tags: list[str] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    source: str = "api"

    @classmethod
    def load(cls, stored: Mapping[str, Any]) -> Self:
        """Return the fields of a stored version; other keys, such as those of an import, are left out."""
        names = {item.name for item in fields(cls)}
        return cls(**{name: value for name, value in stored.items() if name in names})

    def view(self) -> dict[str, Any]:
        """Return the fields as a version stores them."""
        return asdict(self)

    def complete(self, content: ContentFields) -> None:
        """Fill the fields that the caller did not send.

        One rule of precedence: the caller's value, then the content's own, then one derived from its text.
        """
        self.title = self.title or content.title or content.derived_title
        self.description = self.description or content.description
        self.language = self.language or content.language or content.derived_language
        self.metadata = {**content.metadata, **self.metadata}


@dataclass(frozen=True, slots=True)
class ContentFields:
    """The fields that a content states itself, and those derived from its text."""

    title: str | None = None
    description: str | None = None
    language: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    derived_title: str | None = None
    derived_language: str | None = None
