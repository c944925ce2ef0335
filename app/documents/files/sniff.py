"""Detect a file's type from its content; the name only decides between kinds of text."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path, PurePath

DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
PPTX = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
ODF = "application/vnd.oasis.opendocument."
EPUB, PDF, RTF, EML, HTML = "application/epub+zip", "application/pdf", "application/rtf", "message/rfc822", "text/html"
IMAGES = {"image/png", "image/jpeg", "image/tiff", "image/webp", "image/bmp", "image/gif"}

# An encrypted Word, Excel or PowerPoint file is an OLE container.
OLE, LOCKED_OFFICE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "application/x-ole-encrypted-office"

HEAD_BYTES = 8192
BMP_HEADERS = {12, 16, 40, 52, 56, 64, 108, 124}
_MAGIC = (
    (b"{\\rtf", RTF),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"GIF8", "image/gif"),
)
_PARTS = {"word/document.xml": DOCX, "ppt/presentation.xml": PPTX, "xl/workbook.xml": XLSX}
# Also of templates, shows and files with macros.
_MAIN_TYPE = re.compile(
    r"(wordprocessingml|presentationml|spreadsheetml|ms-word|ms-powerpoint|ms-excel)\.[\w.]*\bmain\+xml", re.IGNORECASE
)
_MAIN_TYPES = {
    "wordprocessingml": DOCX, "ms-word": DOCX, "presentationml": PPTX, "ms-powerpoint": PPTX, "spreadsheetml": XLSX,
    "ms-excel": XLSX,
}  # fmt: skip
MAX_NAMES, MAX_TYPES_BYTES = 20_000, 1_000_000
_TEXT_NAMES = {
    ".md": "text/markdown", ".markdown": "text/markdown", ".csv": "text/csv", ".tsv": "text/csv", ".htm": HTML,
    ".html": HTML, ".xhtml": HTML, ".eml": EML,
}  # fmt: skip
# The first member, or a mark of an archive in parts before it.
_ZIPS = (b"PK\x03\x04", b"PK00PK\x03\x04", b"PK\x07\x08PK\x03\x04")
_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_MAIL = (b"from:", b"to:", b"subject:", b"date:", b"received:", b"return-path:", b"message-id:", b"mime-version:")


def sniff(path: Path, name: str) -> str | None:
    """Return the media type; None for unreadable files: programs, archives, older Office files and the like."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if _is_pdf(head, name):
        return PDF
    if head.startswith(OLE):
        return LOCKED_OFFICE if _has_encrypted_package(path) else None
    if head.startswith(_ZIPS):
        return _zipped(path)
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "image/webp"
    if _is_bmp(head):
        return "image/bmp"
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    return _textual(head, name)


def _is_pdf(head: bytes, name: str) -> bool:
    """Return True for a PDF. Readers accept junk before the header; a text that only mentions it is not a PDF."""
    at = head[:1024].find(b"%PDF-")
    return at == 0 or (at > 0 and (name.lower().endswith(".pdf") or _textual(head, name) is None))


def _is_bmp(head: bytes) -> bool:
    """Return True for `BM`, reserved zeros, and a header of a known length."""
    return head.startswith(b"BM") and head[6:10] == bytes(4) and int.from_bytes(head[14:18], "little") in BMP_HEADERS


def _has_encrypted_package(path: Path) -> bool:
    """Return True if an OLE container is an encrypted Office file (MS-OFFCRYPTO 2.3.2 names the stream)."""
    marker = "EncryptedPackage".encode("utf-16-le")
    before = b""
    with path.open("rb") as file:
        while block := file.read(1024 * 1024):
            if marker in before + block:
                return True
            before = block[-len(marker) :]
    return False


def unmarked_utf16(data: bytes) -> str | None:
    """Return utf-16-le or -be for unmarked text of mostly Latin letters in it: every second byte is zero."""
    even, odd = data[0::2], data[1::2]
    if len(data) < 8 or not odd:
        return None
    zeros = even.count(0) / len(even), odd.count(0) / len(odd)
    if zeros[1] > 0.4 and zeros[0] < 0.02:
        return "utf-16-le"
    return "utf-16-be" if zeros[0] > 0.4 and zeros[1] < 0.02 else None


def _zipped(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.replace("\\", "/").lstrip("/").lower(): name for name in archive.namelist()[:MAX_NAMES]}
            if (mimetype := names.get("mimetype")) and archive.getinfo(mimetype).file_size < 200:
                media_type = archive.read(mimetype).decode("ascii", "replace").strip()
                if media_type == EPUB or media_type.startswith(ODF):
                    return media_type
            return _office(archive, names)
    except Exception:  # noqa: BLE001  a broken zip raises many kinds of error; it is treated as unreadable
        return None


def _office(archive: zipfile.ZipFile, names: dict[str, str]) -> str | None:
    """Return the kind of an Office file by the content type of its main part, else by that part's usual name."""
    types = names.get("[content_types].xml")
    if types is not None and archive.getinfo(types).file_size < MAX_TYPES_BYTES:
        match = _MAIN_TYPE.search(archive.read(types).decode("utf-8", "replace"))
        if match is not None:
            return _MAIN_TYPES[match[1].lower()]
    return next((kind for part, kind in _PARTS.items() if part in names), None)


def _textual(head: bytes, name: str) -> str | None:
    wide = unmarked_utf16(head)
    if wide is not None:
        head = head.decode(wide, "replace").encode()
    if not head.startswith(_MARKS):
        strange = sum(byte < 32 and byte not in (9, 10, 12, 13, 27) for byte in head)
        if b"\x00" in head or strange * 50 > len(head):
            return None
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return HTML
    by_name = _TEXT_NAMES.get(PurePath(name.lower()).suffix)
    if by_name == EML or (by_name is None and start.startswith(_MAIL) and b"\nsubject:" in b"\n" + start):
        return EML
    return by_name or "text/plain"
