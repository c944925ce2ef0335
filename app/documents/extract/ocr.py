"""OCR of pictures by tesseract, if that program is installed."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from app.core.errors import InvalidInput
from app.documents.extract.limits import USUAL, ExtractLimits
from app.documents.extract.pages import Pages
from app.jobs.sandbox import programs

PROGRAM = "tesseract"
# Errors that Pillow raises on inconsistent pictures.
_BROKEN = (
    UnidentifiedImageError, ArithmeticError, AttributeError, LookupError, OSError, EOFError, SyntaxError, TypeError,
    ValueError, struct.error, Image.DecompressionBombError,
)  # fmt: skip


def is_installed() -> bool:
    return programs.is_installed(PROGRAM)


@lru_cache(maxsize=1)
def _languages() -> str:
    """Return all installed languages, English first."""
    listing = programs.run(PROGRAM, ["--list-langs"], timeout_s=20).stdout.decode("utf-8", "replace")
    names = [line for line in listing.splitlines()[1:] if line.strip() and line != "osd"]
    return "+".join(sorted(names, key=lambda name: name != "eng")[:6]) or "eng"


@contextmanager
def _ignore_warnings() -> Iterator[None]:
    """Suppress Pillow's warnings of unknown tags; real faults are raised."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def extract(blob: Path, limits: ExtractLimits = USUAL, *, progress: Any = None) -> Pages:
    """Extract the text of a picture, its frames as pages; blank ones if tesseract is not installed.

    Raises InvalidInput.
    """
    pages = Pages(limits)
    pages.ocr = is_installed()
    pages.needs_ocr = not pages.ocr
    Image.MAX_IMAGE_PIXELS = limits.picture_pixels
    try:
        with _ignore_warnings(), Image.open(blob) as picture:
            if picture.width * picture.height > limits.picture_pixels:
                raise InvalidInput(f"{picture.width} x {picture.height} pixels are too many", code="document_size")
            frames = getattr(picture, "n_frames", 1)
            if frames > limits.frames:
                pages.cut("frames", limits.frames)
            for frame in range(min(frames, limits.frames)):
                picture.seek(frame)
                grey = picture.convert("L")
                pages.add(read(grey, limits.ocr_s) if pages.ocr else "")
                if progress is not None:
                    progress.report(frame + 1, min(frames, limits.frames), unit="pages")
    except _BROKEN as error:
        raise InvalidInput(f"the picture is broken: {error}", code="broken_document") from error
    return pages


def read(picture: Image.Image, limit_s: float) -> str:
    """Return the text of one picture; blank if there is none. Raises InvalidInput if tesseract fails or exceeds its
    time."""
    data = io.BytesIO()
    picture.save(data, "PNG")
    try:
        arguments = ["stdin", "stdout", "-l", _languages()]
        process = programs.run(PROGRAM, arguments, data=data.getvalue(), timeout_s=limit_s)
    except TimeoutError as error:
        raise InvalidInput(f"tesseract took longer than {limit_s:g} s for one page", code="ocr_failed") from error
    if process.returncode != 0:
        why = process.stderr.decode("utf-8", "replace").strip()[-300:] or f"exit code {process.returncode}"
        raise InvalidInput(f"tesseract could not read the picture: {why}", code="ocr_failed")
    return process.stdout.decode("utf-8", "replace")
