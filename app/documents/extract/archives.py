"""Zip files of strangers: opened only where what is inside stays within bounds."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from pathlib import Path

from app.core.errors import InvalidInput

MOST_MEMBERS = 20_000
MOST_BYTES = 1024 * 1024 * 1024
MOST_MEMBER_BYTES = 256 * 1024 * 1024
# Text and XML shrink to a twentieth; a bomb to a thousandth.
MOST_RATIO = 200
RATIO_COUNTS_FROM = 10 * 1024 * 1024
# What zipfile raises on archives of strangers: NotImplementedError for a version or packing that it cannot read,
# RuntimeError for an encrypted part.
_BROKEN = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, OSError, EOFError, LookupError, ValueError,
    RuntimeError, NotImplementedError,
)  # fmt: skip


def checked(blob: Path) -> zipfile.ZipFile:
    """The archive, open. Raises InvalidInput for one that is broken, encrypted or swells beyond reason."""
    try:
        archive = zipfile.ZipFile(blob)
        members = archive.infolist()
    except _BROKEN as error:
        raise InvalidInput(f"the file is broken: {error}", code="broken_document") from error
    total = sum(member.file_size for member in members)
    if len(members) > MOST_MEMBERS or total > MOST_BYTES:
        raise InvalidInput(f"{len(members)} parts of {total:,} bytes in all: too many", code="archive_bomb")
    for member in members:
        swollen = member.file_size > RATIO_COUNTS_FROM and member.file_size > MOST_RATIO * max(1, member.compress_size)
        if swollen or member.file_size > MOST_MEMBER_BYTES:
            raise InvalidInput(f"{member.filename} grows to {member.file_size:,} bytes", code="archive_bomb")
        if member.flag_bits & 0x1:
            raise InvalidInput("the file is encrypted", code="encrypted_document")
    return archive


def member(archive: zipfile.ZipFile, name: str) -> bytes | None:
    """A part's bytes, None where it is not there; never more than it says it has."""
    try:
        said = archive.getinfo(name)
    except KeyError:
        return None
    found = beginning(archive, said, said.file_size + 1)
    if len(found) > said.file_size:
        raise InvalidInput(f"{name} is larger than it says", code="archive_bomb")
    return found


def beginning(archive: zipfile.ZipFile, part: zipfile.ZipInfo, size: int = 2048) -> bytes:
    """The first bytes of a part. Raises InvalidInput."""
    try:
        with archive.open(part) as file:
            return file.read(size)
    except _BROKEN as error:
        raise InvalidInput(f"the file is broken: {part.filename}: {error}", code="broken_document") from error
