"""Files over HTTP: taken in as they come, and given back as they came."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy.orm import Session
from starlette.datastructures import FormData, UploadFile

from app.api.http.auth import CollectionCaller, Identity
from app.api.http.idempotency import Once, OnceKey
from app.api.http.responses import answer_of, answered
from app.api.routes.documents.collections import reach, target
from app.core.blobs import blobs
from app.core.db import in_transaction, read
from app.core.errors import AppError, InvalidInput, TooLarge, Unsupported
from app.core.settings import get_settings
from app.documents import catalog
from app.documents.accept import uploads
from app.documents.accept.accept import About
from app.documents.accept.uploads import AcceptedFile, Duplicates, Original
from app.documents.files.sniff import sniff
from app.documents.text import scrub
from app.jobs.idempotency import Answer
from app.tenants import scopes

router = APIRouter(prefix="/api", tags=["documents"])

PATH = "/api/documents/upload"
MOST_FILES = 1000
PART_BYTES = 1024 * 1024
Tag = Annotated[str, Field(max_length=100)]
FIELDS = ("title", "language", "collection", "external_id", "url", "duplicates", "source", "password")


class UploadFields(BaseModel):
    """What a form says beside its files. `tags` may come several times; `metadata` is JSON."""

    model_config = ConfigDict(extra="forbid")

    title: Annotated[str, Field(max_length=1000)] | None = None
    language: Annotated[str, Field(max_length=35)] | None = None
    collection: Annotated[str, Field(max_length=100)] | None = None
    external_id: Annotated[str, Field(max_length=512)] | None = None
    url: str | None = None
    duplicates: Duplicates = "allow"
    source: Annotated[str, Field(max_length=64)] = "upload"
    password: Annotated[str, Field(max_length=255)] | None = None
    tags: Annotated[list[Tag], Field(max_length=100)] = []
    metadata: dict[str, Any] = {}

    def about(self, collection: str | None) -> About:
        return About(
            url=self.url,
            external_id=self.external_id,
            title=self.title,
            language=self.language,
            tags=tuple(self.tags),
            metadata=scrub(self.metadata),
            source=self.source,
            collection=collection,
        )


@dataclass(frozen=True, slots=True)
class File:
    """A file of the request: kept, or why not."""

    name: str
    original: Original | None
    error: AppError | None = None


FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "array", "items": {"type": "string", "format": "binary"}},
                        "tags": {"type": "array", "items": {"type": "string"}},
                        "metadata": {"type": "string", "description": "A JSON object."},
                        "duplicates": {"type": "string", "enum": ["allow", "link", "reject"]},
                        **{name: {"type": "string"} for name in FIELDS if name != "duplicates"},
                    },
                }
            }
        },
    }
}


@router.post(
    "/documents/upload",
    summary="Give files: each becomes a document",
    status_code=202,
    openapi_extra=FORM,
    responses={
        200: {"description": "Every file was there already (`duplicates=link`)."},
        202: {"description": "Accepted: the job of the one file; of several, `data` and `errors`."},
        415: {"description": "The one file cannot be read."},
    },
)
async def upload(request: Request, caller: CollectionCaller, key: OnceKey) -> Response:
    """Files go to disk as they arrive and are kept as they came. What they are is told from what is in them; one that
    is too large, empty or of no kind that can be read is refused, and the others are taken."""
    form = await _form(request)
    try:
        fields = _fields(form)
        about = fields.about(target(caller, fields.collection))
        given = [value for value in form.getlist("file") if isinstance(value, UploadFile)]
        _check(given, fields)
        files = [await _kept(one) for one in given]
    finally:
        await form.close()
    if len(files) == 1 and files[0].error is not None:
        raise files[0].error
    once = Once(key, _digest(fields, files))

    def work(session: Session) -> Answer:
        return _taken(session, caller, about, files, fields)

    return await answered(request, caller.tenant, await once.run(caller.tenant, work))


async def _form(request: Request) -> FormData:
    """Raises InvalidInput for what is no form, or one with too many parts."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise InvalidInput("send multipart/form-data with one `file` or several", code="multipart")
    return await request.form(max_files=MOST_FILES, max_fields=200)


def _fields(form: FormData) -> UploadFields:
    given: dict[str, Any] = {name: form[name] for name in FIELDS if name in form}
    unknown = set(form) - {*FIELDS, "file", "tags", "metadata"}
    if unknown:
        raise InvalidInput(f"unknown field {sorted(unknown)[0]!r}", code="field")
    given["tags"] = [part.strip() for value in form.getlist("tags") for part in str(value).split(",") if part.strip()]
    try:
        if "metadata" in form:
            given["metadata"] = json.loads(str(form["metadata"]))
        return UploadFields.model_validate(given)
    except ValidationError as error:
        faults = [{"field": ".".join(map(str, one["loc"])), "message": one["msg"]} for one in error.errors()]
        raise InvalidInput("the form has wrong fields", code="field", errors=faults) from error
    except (ValueError, RecursionError) as error:
        raise InvalidInput("metadata: it is no JSON", code="field") from error


def _check(given: list[UploadFile], fields: UploadFields) -> None:
    if not given:
        raise InvalidInput("there is no `file` in the form", code="no_file")
    if len(given) > 1 and (fields.external_id or fields.url or fields.title):
        raise InvalidInput("external_id, url and title are for one file", code="field")


async def _kept(given: UploadFile) -> File:
    """The file in the store of originals."""
    name = uploads.safe_name(given.filename)
    largest = get_settings().max_upload_bytes
    with tempfile.TemporaryDirectory(prefix="millrace-") as folder:
        path = Path(folder) / "upload"
        size = await _written(given, path)
        if size > largest:
            return File(name, None, TooLarge(f"{name}: {size:,} bytes, at most {largest:,} are taken"))
        if size == 0:
            return File(name, None, InvalidInput(f"{name} is empty", code="empty_document"))
        kind = await asyncio.to_thread(sniff, path, name)
        if kind is None:
            return File(name, None, Unsupported(f"{name} is of no kind that can be read"))
        blob = await blobs().put_file(path)
        return File(name, Original(blob.key, blob.size_bytes, kind, name))


async def _written(given: UploadFile, path: Path) -> int:
    size = 0
    with path.open("wb") as file:
        while part := await given.read(PART_BYTES):
            size += len(part)
            await asyncio.to_thread(file.write, part)
    return size


def _digest(fields: UploadFields, files: list[File]) -> str:
    said = [fields.model_dump(mode="json"), [(one.name, one.original and one.original.blob_key) for one in files]]
    return hashlib.sha256(json.dumps([PATH, said]).encode()).hexdigest()


def _taken(session: Session, caller: Identity, about: About, files: list[File], fields: UploadFields) -> Answer:
    within = reach(session, caller, scopes.WRITE)
    shown, errors = [], [_refusal(one.name, one.error) for one in files if one.error is not None]
    for one in files:
        if one.original is None:
            continue
        try:
            with session.begin_nested():
                taken = uploads.accept_file(
                    session,
                    about,
                    one.original,
                    tenant=caller.tenant,
                    request_id=caller.request_id,
                    reach=within,
                    duplicates=fields.duplicates,
                    password=fields.password,
                )
        except AppError as error:
            if len(files) == 1:
                raise
            errors.append(_refusal(one.name, error))
            continue
        shown.append(_shown(one.name, taken))
        if len(files) == 1 and taken.job is not None:
            return answer_of(taken.job, {"file_name": one.name})
    started = any(one["job"] is not None for one in shown)
    if len(files) == 1:
        return Answer(200, shown[0])
    return Answer(202 if started else 200, {"data": shown, "errors": errors})


def _shown(name: str, taken: AcceptedFile) -> dict[str, Any]:
    job = taken.job
    view = None if job is None else answer_of(job).body
    return {"file_name": name, "document_id": str(taken.document_id), "duplicate": job is None, "job": view}


def _refusal(name: str, error: AppError) -> dict[str, Any]:
    return {"file_name": name, "code": error.code, "detail": error.message}


class ReprocessRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    password: Annotated[str, Field(max_length=255)] | None = Field(None, description="Of a locked file.")


@router.post(
    "/documents/{document_id}/reprocess", summary="Read a document again, from its original where it has one",
    status_code=202,
)  # fmt: skip
async def reprocess(
    request: Request, caller: CollectionCaller, document_id: str, body: ReprocessRequest | None = None
) -> Response:
    """After a failure, or when a newer version reads better. What is searched stays until the new is there."""
    answer = await in_transaction(_reprocess, caller, document_id, body.password if body is not None else None)
    return await answered(request, caller.tenant, answer)


def _reprocess(session: Session, caller: Identity, document_id: str, password: str | None) -> Answer:
    within = reach(session, caller, scopes.WRITE)
    document = catalog.get(session, caller.tenant, document_id, lock=True, reach=within)
    return answer_of(uploads.reprocess(session, document, request_id=caller.request_id, password=password))


@router.get("/documents/{document_id}/original", summary="The file as it came", response_class=StreamingResponse)
async def original(caller: CollectionCaller, document_id: str) -> Response:
    """Always as an attachment: what strangers gave is not shown under this address."""
    found = await read(_original, caller, document_id)
    store = blobs()
    await store.written_at(found.blob_key)  # a missing one is 404 and not a broken stream
    headers = {
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(found.file_name)}",
        "Content-Length": str(found.size_bytes),
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox",
        "ETag": f'"{found.blob_key}"',
    }
    return StreamingResponse(_streamed(store.stream(found.blob_key)), media_type=found.media_type, headers=headers)


async def _streamed(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async with contextlib.aclosing(parts) as stream:  # type: ignore[type-var]
        async for part in stream:
            yield part


def _original(session: Session, caller: Identity, document_id: str) -> Original:
    return uploads.find_original(session, caller.tenant, document_id, reach(session, caller, scopes.READ))
