"""Uploads of files, and downloads of the stored originals."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import tempfile
import unicodedata
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from python_multipart.multipart import parse_options_header
from sqlalchemy.orm import Session
from starlette.datastructures import FormData, UploadFile

from app.api.http.auth import CollectionCaller, Identity
from app.api.http.collection_access import reachable_collections, target_collection
from app.api.http.idempotency import Answer, IdempotentRequest, KeyHeader
from app.api.http.responses import answer_of, answered
from app.api.models.base import documented
from app.api.models.documents import UploadedDocument, UploadJob, UploadResult
from app.api.models.jobs import JOB_ACCEPTED
from app.core import charsets
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
from app.tenants import scopes

router = APIRouter(prefix="/api", tags=["documents"])

PATH = "/api/documents/upload"
MAX_FILES = 1000
PART_BYTES = 1024 * 1024
Tag = Annotated[str, Field(max_length=100)]
FIELDS = ("title", "language", "collection", "external_id", "url", "duplicates", "source", "password")


class UploadFields(BaseModel):
    """The fields of a form next to its files. `tags` may be repeated; `metadata` is JSON."""

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
class ReceivedFile:
    """A file of the request: stored, or refused with an error."""

    name: str
    original: Original | None
    error: AppError | None = None


FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "example": {"file": ["handbook.pdf"], "collection": "handbook", "tags": ["hr"], "duplicates": "link"},
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
                },
            }
        },
    }
}


@router.post(
    "/documents/upload",
    summary="Upload files; each becomes a document",
    status_code=202,
    openapi_extra=FORM,
    responses={
        202: documented(UploadJob | UploadResult, "The job of the only file; for several files `data` and `errors`."),
        200: documented(
            UploadJob | UploadedDocument | UploadResult,
            "The job has ended, or every file was already stored (`duplicates=link`).",
        ),
        415: {"description": "The only file is of no supported type."},
    },
)
async def upload_documents(request: Request, caller: CollectionCaller, key: KeyHeader) -> Response:
    """Stores each file unchanged and detects its type from its content. A file that is too large, empty or of no
    supported type is refused; the others are accepted."""
    form = await _form(request)
    try:
        fields = _fields(form)
        about = fields.about(target_collection(caller, fields.collection))
        parts = [value for value in form.getlist("file") if isinstance(value, UploadFile)]
        _check(parts, fields)
        files = [await _store(part) for part in parts]
    finally:
        await form.close()
    if len(files) == 1 and files[0].error is not None:
        raise files[0].error
    once = IdempotentRequest(key, _digest(fields, files))

    def work(session: Session) -> Answer:
        return _accept(session, caller, about, files, fields)

    return await answered(request, caller.tenant, await once.run(caller, work))


async def _form(request: Request) -> FormData:
    """Return the parsed form. Raises InvalidInput for another content type, or too many parts."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise InvalidInput(
            "Content-Type must be multipart/form-data, with one or more parts named `file`", code="multipart"
        )
    _, parameters = parse_options_header(request.headers["content-type"])
    label = parameters.get(b"charset", b"utf-8").decode("latin-1")
    if charsets.encoding_of(label) is None:  # the parser would look it up among all codecs of Python
        raise InvalidInput(f"Content-Type: the charset {label[:40]!r} is unknown", code="multipart")
    return await request.form(max_files=MAX_FILES, max_fields=200)


def _fields(form: FormData) -> UploadFields:
    values: dict[str, Any] = {name: form[name] for name in FIELDS if name in form}
    unknown = set(form) - {*FIELDS, "file", "tags", "metadata"}
    if unknown:
        raise InvalidInput(f"unknown field {sorted(unknown)[0]!r}", code="field")
    values["tags"] = [part.strip() for value in form.getlist("tags") for part in str(value).split(",") if part.strip()]
    try:
        if "metadata" in form:
            values["metadata"] = json.loads(str(form["metadata"]))
        return UploadFields.model_validate(values)
    except ValidationError as error:
        faults = [{"field": ".".join(map(str, fault["loc"])), "message": fault["msg"]} for fault in error.errors()]
        raise InvalidInput("the form has invalid fields", code="field", errors=faults) from error
    except (ValueError, RecursionError) as error:
        raise InvalidInput("metadata must be JSON", code="field") from error


def _check(parts: list[UploadFile], fields: UploadFields) -> None:
    if not parts:
        raise InvalidInput("the form has no part named `file`", code="no_file")
    if len(parts) > 1 and (fields.external_id or fields.url or fields.title):
        raise InvalidInput("external_id, url and title are allowed with a single file only", code="field")


async def _store(part: UploadFile) -> ReceivedFile:
    """Put the file into the blob store, or return the reason to refuse it."""
    name = uploads.safe_name(part.filename)
    max_bytes = get_settings().max_upload_bytes
    with tempfile.TemporaryDirectory(prefix="millrace-") as folder:
        path = Path(folder) / "upload"
        size = await _write(part, path)
        if size > max_bytes:
            return ReceivedFile(name, None, TooLarge(f"{name} has {size:,} bytes; the limit is {max_bytes:,}"))
        if size == 0:
            return ReceivedFile(name, None, InvalidInput(f"{name} is empty", code="empty_document"))
        kind = await asyncio.to_thread(sniff, path, name)
        if kind is None:
            return ReceivedFile(name, None, Unsupported(f"{name} is of no supported type"))
        blob = await blobs().put_file(path)
        return ReceivedFile(name, Original(blob.key, blob.size_bytes, kind, name))


async def _write(part: UploadFile, path: Path) -> int:
    size = 0
    with path.open("wb") as file:
        while chunk := await part.read(PART_BYTES):
            size += len(chunk)
            await asyncio.to_thread(file.write, chunk)
    return size


def _digest(fields: UploadFields, files: list[ReceivedFile]) -> str:
    content = [
        fields.model_dump(mode="json"),
        [(file.name, file.original and file.original.blob_key) for file in files],
    ]
    return hashlib.sha256(json.dumps([PATH, content]).encode()).hexdigest()


def _accept(
    session: Session, caller: Identity, about: About, files: list[ReceivedFile], fields: UploadFields
) -> Answer:
    reach = reachable_collections(session, caller, scopes.WRITE)
    stored, errors = [], [_refusal(file.name, file.error) for file in files if file.error is not None]
    for file in files:
        if file.original is None:
            continue
        try:
            with session.begin_nested():
                accepted = uploads.accept_file(
                    session,
                    about,
                    file.original,
                    tenant=caller.tenant,
                    request_id=caller.request_id,
                    reach=reach,
                    duplicates=fields.duplicates,
                    password=fields.password,
                )
        except AppError as error:
            if len(files) == 1:
                raise
            errors.append(_refusal(file.name, error))
            continue
        stored.append(_view(file.name, accepted))
        if len(files) == 1 and accepted.job is not None:
            return answer_of(accepted.job, {"file_name": file.name})
    if len(files) == 1:
        return Answer(200, stored[0])
    started = any(view["job"] is not None for view in stored)
    return Answer(202 if started else 200, {"data": stored, "errors": errors})


def _view(name: str, accepted: AcceptedFile) -> dict[str, Any]:
    job = accepted.job
    view = None if job is None else answer_of(job).body
    return {"file_name": name, "document_id": str(accepted.document_id), "duplicate": job is None, "job": view}


def _refusal(name: str, error: AppError) -> dict[str, Any]:
    return {"file_name": name, "code": error.code, "detail": error.message}


class ReprocessRequest(BaseModel):
    """Options of a new run over a stored document."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"password": "correct horse"}]})

    password: Annotated[str, Field(max_length=255)] | None = Field(
        None, description="The password of an encrypted file."
    )


@router.post(
    "/documents/{document_id}/reprocess",
    summary="Extract and index a document again, from its original if stored",
    status_code=202,
    responses=JOB_ACCEPTED,
)
async def reprocess_document(
    request: Request, caller: CollectionCaller, document_id: str, body: ReprocessRequest | None = None
) -> Response:
    """For use after a failure, or after an upgrade. Searches use the old content until the new one is indexed."""
    answer = await in_transaction(_reprocess, caller, document_id, body.password if body is not None else None)
    return await answered(request, caller.tenant, answer)


def _reprocess(session: Session, caller: Identity, document_id: str, password: str | None) -> Answer:
    reach = reachable_collections(session, caller, scopes.WRITE)
    document = catalog.get(session, caller.tenant, document_id, lock=True, reach=reach)
    return answer_of(uploads.reprocess(session, document, request_id=caller.request_id, password=password))


ORIGINAL = {
    "description": "The file, with its own media type.",
    "content": {
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        "*/*": {"schema": {"type": "string", "format": "binary"}},
    },
}


@router.get(
    "/documents/{document_id}/original",
    summary="Download the original file",
    response_class=StreamingResponse,
    responses={200: ORIGINAL},
)
async def download_original(caller: CollectionCaller, document_id: str) -> Response:
    """Always sent as an attachment: browsers must not render uploaded files under this origin."""
    file = await read(_original, caller, document_id)
    store = blobs()
    await store.written_at(file.blob_key)  # 404 for a missing blob, instead of a broken stream
    headers = {
        "Content-Disposition": content_disposition(file.file_name),
        "Content-Length": str(file.size_bytes),
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox",
        "ETag": f'"{file.blob_key}"',
    }
    return StreamingResponse(_close_after(store.stream(file.blob_key)), media_type=file.media_type, headers=headers)


def content_disposition(name: str) -> str:
    """Return the header of a download (RFC 6266): `filename` for every client, `filename*` for names beyond ASCII."""
    decomposed = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^ !#-\[\]-~]|[%;/]", "_", decomposed).strip()
    stem, dot, suffix = plain.rpartition(".")
    if not (stem if dot else plain).strip("_ ."):  # at most the suffix was ASCII
        plain = f"file{dot}{suffix if dot else ''}"
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


async def _close_after(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async with contextlib.aclosing(parts) as stream:  # type: ignore[type-var]
        async for part in stream:
            yield part


def _original(session: Session, caller: Identity, document_id: str) -> Original:
    return uploads.find_original(
        session, caller.tenant, document_id, reachable_collections(session, caller, scopes.READ)
    )
