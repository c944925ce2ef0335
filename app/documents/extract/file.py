"""Turn a readable file of any kind into Markdown and its pages. Runs in the sandbox."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from app.core.errors import InvalidInput
from app.documents.extract import epub_parser, html_parser, mail, ocr, odf_parser, plain
from app.documents.extract.limits import USUAL, ExtractLimits
from app.documents.extract.office import office_parser
from app.documents.extract.pages import Pages
from app.documents.extract.pdf import pdf_parser
from app.documents.files import sniff

_READERS: dict[str, Callable[[Path, ExtractLimits], Pages]] = {
    sniff.DOCX: partial(office_parser.extract, kind="docx"),
    sniff.PPTX: partial(office_parser.extract, kind="pptx"),
    sniff.XLSX: partial(office_parser.extract, kind="xlsx"),
    sniff.EPUB: epub_parser.extract,
    sniff.EML: mail.extract,
    sniff.RTF: plain.rtf,
    sniff.HTML: html_parser.extract,
    "text/csv": plain.separated,
    "text/plain": plain.text,
    "text/markdown": plain.text,
}


def extract_file(
    blob: Path,
    *,
    name: str,
    media_type: str,
    password: str | None = None,
    progress: Any = None,
    limits: ExtractLimits = USUAL,
) -> dict[str, Any]:
    """Return {title, description, language, metadata, pages [{number, start, end}], attachments [{name, media_type,
    path}], ocr}.

    The text is written to the file's path with the ending `.md`; offsets count in it. If it is blank, `no_text` of the
    metadata has the reason: `ocr_missing` or `empty`.

    Raises InvalidInput: encrypted_document, wrong_password, broken_document, empty_document, archive_bomb,
    document_size, too_many_pages, unsupported_type, ocr_failed. empty_document is a file of no bytes.
    """
    if blob.stat().st_size == 0:
        raise InvalidInput(f"{name} is empty", code="empty_document")
    pages = _read(blob, name, media_type, password, progress, limits)
    blob.with_suffix(".md").write_text(pages.text, "utf-8", "replace")
    return pages.about()


def _read(blob: Path, name: str, media_type: str, password: str | None, progress: Any, limits: ExtractLimits) -> Pages:
    if media_type == sniff.PDF:
        return pdf_parser.extract(blob, limits, password=password, progress=progress)
    if media_type in sniff.IMAGES:
        return ocr.extract(blob, limits, progress=progress)
    if media_type == sniff.LOCKED_OFFICE:
        raise InvalidInput(f"{name} is encrypted; send a copy without a password", code="encrypted_document")
    if media_type.startswith(sniff.ODF):
        return odf_parser.extract(blob, limits)
    reader = _READERS.get(media_type)
    if reader is None:
        raise InvalidInput(f"{name} has the unsupported type {media_type}", code="unsupported_type")
    return reader(blob, limits)
