"""Extract a file in the test's own process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.core.errors import InvalidInput
from app.documents.extract.file import extract_file
from app.documents.files import sniff


def read(path: Path, **more: Any) -> dict[str, Any]:
    """Return the result of extract_file with the text."""
    kind = sniff.sniff(path, path.name)
    assert kind is not None
    result = extract_file(path, name=path.name, media_type=kind, **more)
    return result | {"text": path.with_suffix(".md").read_text("utf-8")}


def code(path: Path, **more: Any) -> str:
    with pytest.raises(InvalidInput) as caught:
        read(path, **more)
    return caught.value.code
