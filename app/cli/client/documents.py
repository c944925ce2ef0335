"""Turn files, folders and addresses into requests that index them, and send these."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app.cli import exit_codes
from app.cli.client.http import ApiClient
from app.cli.exit_codes import CliExit

# These files are read as text and sent as JSON; all others are uploaded as they are.
FIELD_OF_SUFFIX = {".md": "markdown", ".markdown": "markdown", ".html": "html", ".htm": "html", ".txt": "text"}
FILE_SUFFIXES = (
    ".pdf", ".docx", ".pptx", ".xlsx", ".odt", ".ods", ".odp", ".epub", ".eml", ".rtf", ".csv", ".tsv", ".png", ".jpg",
    ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".gif",
)  # fmt: skip
BATCH_SUFFIXES = (".ndjson", ".jsonl")
PATH = "/api/documents"
STDIN_FOLDER = "millrace-stdin-"


def list_requests(target: str, tags: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and body for each document of a target; a folder stands for all its readable files."""
    extra = {"tags": list(tags)} if tags else {}
    if target.startswith(("http://", "https://")):
        yield target, {"url": target, "source": "cli", **extra}
        return
    path = Path(target)
    if path.is_dir():
        for file in _readable_files(path):
            yield str(file), {**_read_file(file), **extra}
    elif path.is_file() and path.suffix.lower() in BATCH_SUFFIXES:
        if tags:
            raise CliExit(exit_codes.USAGE, f"{target}: --tag does not apply to a batch; give tags in each line")
        yield target, {"lines": path}
    elif path.is_file():
        yield target, {**_read_file(path), **extra}
    else:
        raise CliExit(exit_codes.USAGE, f"{target} is not a file, a folder or an http(s) URL")


def send_request(api: ApiClient, body: dict[str, Any]) -> dict[str, Any]:
    """Return the job that indexes one document, or one batch of documents."""
    job: dict[str, Any]
    lines, file = body.pop("lines", None), body.pop("file", None)
    if lines is not None:
        job = api.send(f"{PATH}:batch", lines, "application/x-ndjson")
    elif file is not None:
        job = api.upload(f"{PATH}/upload", file, body)
    else:
        job = api.post(PATH, body)
    return job


@contextmanager
def stdin_folder() -> Iterator[Path]:
    """A folder for what is read from stdin, until it has been sent."""
    with tempfile.TemporaryDirectory(prefix=STDIN_FOLDER) as folder:
        yield Path(folder)


def store_stdin(folder: Path, name: str) -> Path:
    """Return a file with the content of stdin. Raises CliExit if stdin is a terminal or empty."""
    if sys.stdin.isatty():
        raise CliExit(exit_codes.USAGE, "stdin is a terminal: pipe the document into the command")
    path = folder / (Path(name).name or "stdin.md")
    with path.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    if path.stat().st_size == 0:
        raise CliExit(exit_codes.USAGE, "stdin is empty: there is nothing to index")
    return path


def _readable_files(folder: Path) -> list[Path]:
    suffixes = (*FIELD_OF_SUFFIX, *FILE_SUFFIXES)
    files = [file for file in sorted(folder.rglob("*")) if file.suffix.lower() in suffixes and file.is_file()]
    if not files:
        raise CliExit(exit_codes.USAGE, f"{folder} contains no file of a readable type ({', '.join(suffixes)})")
    return files


def _read_file(path: Path) -> dict[str, Any]:
    field = FIELD_OF_SUFFIX.get(path.suffix.lower())
    try:
        text = None if field is None else path.read_text(encoding="utf-8")
    except OSError as error:
        raise CliExit(exit_codes.USAGE, f"{path} cannot be read: {error}") from error
    except UnicodeDecodeError:
        text = None  # the server detects the encoding
    if field is None or text is None:
        return {"file": path, **_identity(path)}
    body: dict[str, Any] = {field: text, **_identity(path)}
    title = _first_heading(text) if field == "markdown" else None
    return body | {"title": title or path.stem} if field != "html" else body


def _identity(path: Path) -> dict[str, Any]:
    """Return the URL by which a file is known when it is sent again; each document of stdin is a new one."""
    if path.parent.name.startswith(STDIN_FOLDER):
        return {"source": "cli"}
    return {"url": path.resolve().as_uri(), "source": "cli"}


def _first_heading(markdown: str) -> str | None:
    for line in markdown.splitlines():
        if line.startswith("# "):
            return line[2:].strip()
    return None
