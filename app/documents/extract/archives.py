"""Untrusted zip files: opened only if their contents stay within bounds."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from pathlib import Path

from app.core.errors import InvalidInput

MAX_MEMBERS = 20_000
MAX_BYTES = 1024 * 1024 * 1024
MAX_MEMBER_BYTES = 256 * 1024 * 1024
# Text and XML compress to a twentieth, a bomb to a thousandth.
MAX_RATIO = 200
MIN_RATIO_BYTES = 10 * 1024 * 1024
# Errors that zipfile raises on untrusted archives: NotImplementedError for an unknown version or compression,
# RuntimeError for an encrypted part.
_BROKEN = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, OSError, EOFError, LookupError, ValueError,
    RuntimeError, NotImplementedError,
)  # fmt: skip


def open_archive(blob: Path) -> zipfile.ZipFile:
    """Open the archive. Raises InvalidInput if it is broken, encrypted or expands beyond the limits."""
    try:
        archive = zipfile.ZipFile(blob)
        members = archive.infolist()
    except _BROKEN as error:
        raise InvalidInput(f"the file is broken: {error}", code="broken_document") from error
    total = sum(member.file_size for member in members)
    if len(members) > MAX_MEMBERS or total > MAX_BYTES:
        raise InvalidInput(f"the archive has {len(members)} parts of {total:,} bytes, too many", code="archive_bomb")
    for member in members:
        swollen = member.file_size > MIN_RATIO_BYTES and member.file_size > MAX_RATIO * max(1, member.compress_size)
        if swollen or member.file_size > MAX_MEMBER_BYTES:
            raise InvalidInput(
                f"{member.filename} expands to {member.file_size:,} bytes, too many", code="archive_bomb"
            )
        if member.flag_bits & 0x1:
            raise InvalidInput("the file is encrypted", code="encrypted_document")
    return archive


def read_member(archive: zipfile.ZipFile, name: str) -> bytes | None:
    """Return a part's bytes, None if it is missing. Raises InvalidInput for more bytes than the archive declares."""
    try:
        info = archive.getinfo(name)
    except KeyError:
        return None
    data = read_beginning(archive, info, info.file_size + 1)
    if len(data) > info.file_size:
        raise InvalidInput(f"{name} is larger than the archive declares", code="archive_bomb")
    return data


def read_beginning(archive: zipfile.ZipFile, part: zipfile.ZipInfo, size: int = 2048) -> bytes:
    """Return the first bytes of a part. Raises InvalidInput."""
    try:
        with archive.open(part) as file:
            return file.read(size)
    except _BROKEN as error:
        raise InvalidInput(f"the file is broken: {part.filename}: {error}", code="broken_document") from error
