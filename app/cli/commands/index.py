"""`millrace index`: pages, files and folders into the system, each as one job, watched until found."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from rich.progress import Progress

from app.cli import exit_codes, output
from app.cli.client.event_stream import FINAL, events
from app.cli.client.http import Server
from app.cli.exit_codes import Quit

# What is read as text here and sent as JSON; all other files go as they are.
FIELD_OF_SUFFIX = {".md": "markdown", ".markdown": "markdown", ".html": "html", ".htm": "html", ".txt": "text"}
FILE_SUFFIXES = (
    ".pdf", ".docx", ".pptx", ".xlsx", ".odt", ".ods", ".odp", ".epub", ".eml", ".rtf", ".csv", ".tsv", ".png", ".jpg",
    ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".gif",
)  # fmt: skip
BATCH_SUFFIXES = (".ndjson", ".jsonl")
UPLOAD = "/api/documents/upload"
BATCH = "/api/documents:batch"
WATCHED_AT_ONCE = 8
# What the server would not take, beside files that it took.
REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Sent:
    """One request: what it was about, and the job that answers it."""

    name: str
    job: dict[str, Any]


def run(targets: Sequence[str], *, wait: bool, timeout_s: float, tags: Sequence[str], as_json: bool) -> int:
    """Send every target; with `wait`, follow each job to its end. The exit code is the worst of theirs."""
    bodies = [body for target in targets for body in requests(target, tags)]
    sent, refused = [], []
    with Server() as server:
        for name, body in bodies:
            try:
                sent.append(Sent(name, _sent(server, body)))
            except Quit as error:
                if len(bodies) == 1 or error.code != exit_codes.BAD_USE:
                    raise
                refused.append(Sent(name, {"id": "-", "state": REFUSED, "error": {"message": error.message}}))
        ended = watch(server, sent, timeout_s=timeout_s) if wait else [one.job for one in sent]
    for one, job in zip([*sent, *refused], [*ended, *(one.job for one in refused)], strict=True):
        _report(one.name, job, as_json)
    return exit_codes.FAILED if refused or any(_failed(job) for job in ended) else exit_codes.OK


def _failed(job: dict[str, Any]) -> bool:
    """Whether it did not succeed, or a line of a batch did not."""
    return job["state"] in {"failed", "cancelled"} or bool((job.get("result") or {}).get("failed"))


def _sent(server: Server, body: dict[str, Any]) -> dict[str, Any]:
    """The job that answers one document, or one body of many."""
    lines = body.pop("lines", None)
    if lines is not None:
        batch: dict[str, Any] = server.send(BATCH, lines, "application/x-ndjson")
        return batch
    path = body.pop("file", None)
    if path is None:
        answer: dict[str, Any] = server.post("/api/documents", body)
        return answer
    uploaded: dict[str, Any] = server.upload(UPLOAD, path, body)
    return uploaded


def requests(target: str, tags: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and body for each document behind a target; a folder gives all its readable files."""
    extra = {"tags": list(tags)} if tags else {}
    if target.startswith(("http://", "https://")):
        yield target, {"url": target, "source": "cli", **extra}
        return
    path = Path(target)
    if path.is_dir():
        readable = (*FIELD_OF_SUFFIX, *FILE_SUFFIXES)
        files = [file for file in sorted(path.rglob("*")) if file.suffix.lower() in readable and file.is_file()]
        if not files:
            raise Quit(exit_codes.BAD_USE, f"{target} holds no {', '.join(readable)} files")
        for file in files:
            yield str(file), {**_body_of(file), **extra}
    elif path.is_file() and path.suffix.lower() in BATCH_SUFFIXES:
        if tags:
            raise Quit(exit_codes.BAD_USE, f"{target}: each line has tags of its own")
        yield target, {"lines": path}
    elif path.is_file():
        yield target, {**_body_of(path), **extra}
    else:
        raise Quit(exit_codes.BAD_USE, f"{target} is no file, no folder and no http(s) URL")


def _body_of(path: Path) -> dict[str, Any]:
    field = FIELD_OF_SUFFIX.get(path.suffix.lower())
    try:
        text = None if field is None else path.read_text(encoding="utf-8")
    except OSError as error:
        raise Quit(exit_codes.BAD_USE, f"{path} cannot be read: {error}") from error
    except UnicodeDecodeError:
        text = None  # in whatever encoding, the server finds out
    if field is None or text is None:
        return {"file": path, "url": path.resolve().as_uri(), "source": "cli"}
    body: dict[str, Any] = {field: text, "url": path.resolve().as_uri(), "source": "cli"}
    title = _title(text) if field == "markdown" else None
    return body | {"title": title or path.stem} if field != "html" else body


def _title(markdown: str) -> str | None:
    """The first heading."""
    for line in markdown.splitlines():
        if line.startswith("# "):
            return line[2:].strip()
    return None


def watch(server: Server, sent: Sequence[Sent], *, timeout_s: float) -> list[dict[str, Any]]:
    """Every job as it ended, in the order they were sent; bars show those under way and the whole."""
    deadline = time.monotonic() + timeout_s
    waiting: SimpleQueue[tuple[Sent, Future[dict[str, Any]]]] = SimpleQueue()
    futures = []
    for one in sent:
        futures.append(Future[dict[str, Any]]())
        waiting.put((one, futures[-1]))
    with output.progress() as bars:
        whole = bars.add_task(f"[bold]{len(sent)} documents[/]", total=len(sent), stage="")

        def follow_all() -> None:
            while not waiting.empty():
                with suppress(Empty):
                    one, future = waiting.get_nowait()
                    _settle(future, server, one, bars, deadline)
                    bars.advance(whole)

        # Not an executor: its threads would hold up a Ctrl-C until the last stream has spoken.
        for _ in range(min(WATCHED_AT_ONCE, len(sent))):
            threading.Thread(target=follow_all, daemon=True).start()
        return [future.result() for future in futures]


def _settle(future: Future[dict[str, Any]], server: Server, one: Sent, bars: Progress, deadline: float) -> None:
    try:
        future.set_result(_follow(server, one, bars, deadline))
    except Quit as error:
        future.set_exception(error)
    finally:
        if not future.done():  # a bug: its traceback is on stderr, and nobody may wait for ever
            future.set_exception(Quit(exit_codes.FAILED, f"{one.name} could not be watched"))


def _follow(server: Server, one: Sent, bars: Progress, deadline: float) -> dict[str, Any]:
    job_id = str(one.job["id"])
    if one.job["state"] not in FINAL:
        bar = bars.add_task(output.text(Path(one.name).name or one.name), total=100, stage=one.job["state"])
        for event in events(server, job_id, timeout_s=max(0.1, deadline - time.monotonic())):
            percent = event.data.get("percent")
            bars.update(bar, completed=percent or 0, stage=event.data.get("stage") or event.data.get("state") or "")
        bars.remove_task(bar)
    job: dict[str, Any] = server.get(f"/api/jobs/{job_id}")
    return job


def _report(name: str, job: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.emit({"target": name, "job": job})
        return
    error = f"  {output.text(job['error']['message'])}" if job.get("error") else ""
    if job.get("kind") == "documents.batch" and job.get("result"):
        said = job["result"]
        error = f"  {said['indexed']} indexed, {said['unchanged']} unchanged, {said['failed']} failed"
    output.out.print(f"{output.state(job['state'])}  {output.text(name)}  [dim]{job['id']}[/]{error}")
