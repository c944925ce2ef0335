"""Decompress bodies piece by piece with a limit on the output, so that a decompression bomb is stopped."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from app.core.errors import Rejected

ACCEPTED = "gzip, deflate"
# Size of the pieces of a decompressed body, whatever the compressed ones expand to.
PIECE_BYTES = 16 * 1024
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS


class Inflater:
    """Decoder of one body. Raises Rejected for an encoding that was not requested."""

    def __init__(self, encoding: str) -> None:
        packing = encoding.strip().lower()
        if packing not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise Rejected(f"the content encoding {packing[:40]!r} is not supported", code="content_encoding")
        self._plain = packing in ("", "identity")
        self._raw = packing == "deflate"  # some servers send deflate without the zlib frame
        self._stream = zlib.decompressobj(_GZIP_OR_ZLIB)

    def feed(self, data: bytes, max_bytes: int) -> bytes:
        """Return the decompressed piece; of a larger one only `max_bytes` + 1 bytes."""
        if self._plain:
            return data[: max_bytes + 1]
        parts, size = [], 0
        while data and size <= max_bytes:
            part, data = self._step(data, max_bytes + 1 - size)
            parts.append(part)
            size += len(part)
        return b"".join(parts)

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Yield the decompressed data in pieces of at most PIECE_BYTES, each decompressed when it is asked for."""
        while data:
            part, data = (data, b"") if self._plain else self._step(data, PIECE_BYTES)
            if part:
                yield part

    def _step(self, data: bytes, max_bytes: int) -> tuple[bytes, bytes]:
        """Return the next decompressed bytes, and the compressed rest."""
        part = self._inflate(data, max_bytes)
        rest = self._stream.unconsumed_tail
        if self._stream.eof:  # another member or zero padding may follow
            rest = self._stream.unused_data.lstrip(b"\0")
            self._stream = zlib.decompressobj(_GZIP_OR_ZLIB)
        return part, rest

    def _inflate(self, data: bytes, max_bytes: int) -> bytes:
        try:
            return self._stream.decompress(data, max_bytes)
        except zlib.error as error:
            if not self._raw:
                raise Rejected(f"the compressed body is damaged: {error}", code="content_encoding") from error
        self._raw, self._stream = False, zlib.decompressobj(-zlib.MAX_WBITS)
        return self._inflate(data, max_bytes)
