"""Run the extraction of a file in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.core.errors import InvalidInput
from app.documents.accept import sniff
from app.documents.extract.file import extract_file


def read(path: Path, **more: Any) -> dict[str, Any]:
    """What extract_file says, and the text."""
    kind = sniff.sniff(path, path.name)
    assert kind is not None
    found = extract_file(path, name=path.name, media_type=kind, **more)
    return found | {"text": path.with_suffix(".md").read_text("utf-8")}


def code(path: Path, **more: Any) -> str:
    with pytest.raises(InvalidInput) as caught:
        read(path, **more)
    return caught.value.code
