"""What a file is by what is in it; its name only decides among kinds of text."""

from __future__ import annotations

import zipfile
from pathlib import Path, PurePath

DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
PPTX = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
ODF = "application/vnd.oasis.opendocument."
EPUB, PDF, RTF, EML, HTML = "application/epub+zip", "application/pdf", "application/rtf", "message/rfc822", "text/html"
IMAGES = {"image/png", "image/jpeg", "image/tiff", "image/webp", "image/bmp", "image/gif"}

HEAD_BYTES = 8192
_MAGIC = (
    (b"{\\rtf", RTF),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
)
_PARTS = {"word/document.xml": DOCX, "ppt/presentation.xml": PPTX, "xl/workbook.xml": XLSX}
_TEXT_NAMES = {
    ".md": "text/markdown", ".markdown": "text/markdown", ".csv": "text/csv", ".tsv": "text/csv", ".htm": HTML,
    ".html": HTML, ".xhtml": HTML, ".eml": EML,
}  # fmt: skip
_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_MAIL = (b"from:", b"to:", b"subject:", b"date:", b"received:", b"return-path:", b"message-id:", b"mime-version:")


def sniff(path: Path, name: str) -> str | None:
    """The media type, None for what cannot be read: programs, archives, older Office files and the like."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if b"%PDF-" in head[:1024]:
        return PDF
    if head.startswith(b"PK\x03\x04"):
        return _zipped(path)
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "image/webp"
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    return _textual(head, name)


def _zipped(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist()[:5000])
            if "mimetype" in names and archive.getinfo("mimetype").file_size < 200:
                said = archive.read("mimetype").decode("ascii", "replace").strip()
                if said == EPUB or said.startswith(ODF):
                    return said
    except Exception:  # noqa: BLE001  a broken zip raises whatever its broken part leads to; it is none of ours
        return None
    return next((kind for part, kind in _PARTS.items() if part in names), None)


def _textual(head: bytes, name: str) -> str | None:
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
