"""Text in any encoding, tables of separated values, and RTF."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import charset_normalizer
from striprtf.striprtf import rtf_to_text

from app.core import charsets
from app.core.errors import InvalidInput
from app.documents.extract.limits import USUAL, ExtractLimits
from app.documents.extract.pages import Pages
from app.documents.files.sniff import unmarked_utf16

SAMPLE_BYTES = 256 * 1024
# Text in another encoding has about as many valid as invalid sequences of UTF-8, by chance.
MIN_VALID_TO_INVALID = 8
_MARKS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}


def decode(data: bytes, label: str | None = None) -> str:
    """Decode by byte order mark, else by the label, else as UTF-8, else by detection, else as Windows-1252.

    Bytes that are invalid in the encoding become U+FFFD; they do not make it another encoding.
    """
    for mark, codec in _MARKS.items():
        if data.startswith(mark):
            return data.decode(codec, "replace")
    wide = unmarked_utf16(data[:SAMPLE_BYTES])
    if wide is not None:
        return data.decode(wide, "replace")
    if charsets.encoding_of(label) is not None:
        return charsets.decode(data, label)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("utf-8" if _is_nearly_utf8(data[:SAMPLE_BYTES]) else _detect(data[:SAMPLE_BYTES]), "replace")


def decode_html(data: bytes, label: str | None = None) -> str:
    """Decode HTML or XHTML by this label, else by the one that it declares; see decode()."""
    if charsets.encoding_of(label) is None:
        label = charsets.declared_label(data)
    return decode(data, label)


def _is_nearly_utf8(sample: bytes) -> bool:
    """Return True if nearly all characters beyond ASCII are valid UTF-8, which is no accident."""
    text = sample.decode("utf-8", "replace")
    errors = text.count("\ufffd")
    valid = sum(character > "\x7f" for character in text) - errors
    return valid >= MIN_VALID_TO_INVALID * errors


def _detect(sample: bytes) -> str:
    """Return the codec of unlabelled text, as browsers read the label of the detected encoding."""
    best = charset_normalizer.from_bytes(sample).best()
    if best is None:
        return charsets.DEFAULT_CODEC
    return charsets.encoding_of(best.encoding.replace("_", "-")) or charsets.encoding_of(best.encoding) or best.encoding


def read(blob: Path, limits: ExtractLimits = USUAL) -> str:
    return decode(_bytes(blob, limits))


def _bytes(blob: Path, limits: ExtractLimits) -> bytes:
    size = blob.stat().st_size
    if size > limits.text_bytes:
        raise InvalidInput(f"the text has {size:,} bytes; at most {limits.text_bytes:,} are read", code="document_size")
    return blob.read_bytes()


def read_html(blob: Path, limits: ExtractLimits = USUAL) -> str:
    return decode_html(_bytes(blob, limits))


def text(blob: Path, limits: ExtractLimits = USUAL) -> Pages:
    pages = Pages(limits)
    pages.add(read(blob, limits))
    return pages


def separated(blob: Path, limits: ExtractLimits = USUAL) -> Pages:
    content = read(blob, limits)
    try:
        dialect: type[csv.Dialect] | csv.Dialect = csv.Sniffer().sniff(content[:16_384], delimiters=",;\t|")
    except csv.Error:
        dialect = csv.excel
    csv.field_size_limit(1_000_000)
    pages = Pages(limits)
    try:
        pages.add(pages.table(csv.reader(io.StringIO(content, newline=""), dialect)))
    except csv.Error as error:
        raise InvalidInput(f"the table is broken: {error}", code="broken_document") from error
    return pages


def rtf(blob: Path, limits: ExtractLimits = USUAL) -> Pages:
    content = _bytes(blob, limits).decode("latin-1")
    pages = Pages(limits)
    try:
        pages.add(rtf_to_text(content, errors="replace"))  # type: ignore[no-untyped-call]
    except (LookupError, RecursionError, TypeError, ValueError) as error:
        raise InvalidInput(f"the RTF file is broken: {error}", code="broken_document") from error
    return pages
