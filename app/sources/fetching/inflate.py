"""Packed bodies unpacked piece by piece, never by more than was asked for: a bomb is stopped at the cap."""

from __future__ import annotations

import zlib

from app.core.errors import Rejected

ACCEPTED = "gzip, deflate"
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS


class Inflater:
    """One body's decoder. Raises Rejected for a packing that was not asked for."""

    def __init__(self, encoding: str) -> None:
        packing = encoding.strip().lower()
        if packing not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise Rejected(f"a body packed by {packing[:40]!r} cannot be read", code="content_encoding")
        self._plain = packing in ("", "identity")
        self._raw = packing == "deflate"  # some send it without its frame
        self._stream = zlib.decompressobj(_GZIP_OR_ZLIB)

    def feed(self, data: bytes, most: int) -> bytes:
        """What the next piece comes to; with more than `most` bytes it is cut right after them."""
        if self._plain:
            return data[: most + 1]
        parts, size = [], 0
        while data and size <= most:
            part = self._inflate(data, most + 1 - size)
            parts.append(part)
            size += len(part)
            data = self._stream.unconsumed_tail
            if self._stream.eof:  # another member may follow, or what fills the last block up
                data = self._stream.unused_data.lstrip(b"\0")
                self._stream = zlib.decompressobj(_GZIP_OR_ZLIB)
        return b"".join(parts)

    def _inflate(self, data: bytes, most: int) -> bytes:
        try:
            return self._stream.decompress(data, most)
        except zlib.error as error:
            if not self._raw:
                raise Rejected(f"the packed body is broken: {error}", code="content_encoding") from error
        self._raw, self._stream = False, zlib.decompressobj(-zlib.MAX_WBITS)
        return self._inflate(data, most)
