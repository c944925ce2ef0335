"""Pictures of text by tesseract, where that program is installed."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from app.core.errors import InvalidInput
from app.documents.extract.pages import Pages

MOST_PIXELS = 100_000_000
LIMIT_S = 120.0


@lru_cache(maxsize=1)
def _program() -> str | None:
    return shutil.which("tesseract")


def is_here() -> bool:
    return _program() is not None


@lru_cache(maxsize=1)
def _languages() -> str:
    """All that are installed, English first."""
    said = subprocess.run([str(_program()), "--list-langs"], capture_output=True, text=True, check=False, timeout=20)
    found = [line for line in said.stdout.splitlines()[1:] if line.strip() and line != "osd"]
    return "+".join(sorted(found, key=lambda name: name != "eng")[:6]) or "eng"


def extract(blob: Path) -> Pages:
    """The text of a picture, its frames as pages. Raises InvalidInput, also where no tesseract is installed."""
    if not is_here():
        raise InvalidInput("pictures are read by tesseract, which is not installed here", code="ocr_missing")
    pages = Pages()
    pages.ocr = True
    Image.MAX_IMAGE_PIXELS = MOST_PIXELS
    try:
        with Image.open(blob) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                raise InvalidInput(f"{picture.width} x {picture.height} pixels are too many", code="document_size")
            for frame in range(getattr(picture, "n_frames", 1)):
                picture.seek(frame)
                pages.add(read(picture.convert("L")))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise InvalidInput(f"the picture is broken: {error}", code="broken_document") from error
    return pages


def read(picture: Image.Image) -> str:
    """The text of one picture; blank where none is found."""
    data = io.BytesIO()
    picture.save(data, "PNG")
    command = [str(_program()), "stdin", "stdout", "-l", _languages()]
    try:
        said = subprocess.run(
            command,
            input=data.getvalue(),
            capture_output=True,
            check=False,
            timeout=LIMIT_S,
            env={**os.environ, "OMP_THREAD_LIMIT": "1"},
        )
    except subprocess.TimeoutExpired:
        return ""
    return said.stdout.decode("utf-8", "replace") if said.returncode == 0 else ""
