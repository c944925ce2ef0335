"""Decompress the bodies of web pages as browsers do: several codings, wrong labels, faults at the end.

The output is limited, so that a decompression bomb is stopped. Clients of services take one coding only, and use
app.core.network.inflate.
"""

from __future__ import annotations

import codecs
import zlib
from collections.abc import Callable
from typing import Protocol

import brotli
import zstandard

from app.core.errors import Rejected, Unavailable

ACCEPTED = "gzip, deflate, br, zstd"
CODE = "content_encoding"
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_GZIP_MARK = b"\x1f\x8b"
_ZSTD_MARK = b"\x28\xb5\x2f\xfd"
# The largest window of zstd in HTTP (RFC 9659).
MAX_ZSTD_WINDOW_BYTES = 8 * 1024 * 1024
# zstd has no limit on its output; a piece of this size unpacks to at most 4 MiB.
_ZSTD_PIECE_BYTES = 128
# A shorter body that ends early is not taken for a compressed one.
MIN_BYTES = 8
# Values that servers send although they name no compression.
_NO_CODINGS = {"", "identity", "none", "off", "binary", "7bit", "8bit", "chunked", "aws-chunked", "text", "plain"}


class IncompleteBody(Unavailable):
    """The body ended early or is damaged; the next response may be complete. `partial` is what arrived."""

    code = "incomplete_body"
    partial = b""


class Decoder(Protocol):
    """Decoder of one compression."""

    @property
    def is_complete(self) -> bool:
        """True if the data could end here."""

    def feed(self, data: bytes, max_bytes: int) -> bytes:
        """Return the decompressed piece; of a larger one a little more than `max_bytes`."""


class BodyDecoder:
    """Decoder of one body, which may be compressed several times. Raises Rejected for an unknown encoding."""

    def __init__(self, encoding: str) -> None:
        names = _codings(encoding)
        # The last named was applied last. A server may name a coding twice and apply it once.
        self._decoders = [_new_decoder(name, is_sure=number == 0) for number, name in enumerate(reversed(names))]
        self._fed_bytes = self._produced_bytes = 0

    def feed(self, data: bytes, max_bytes: int) -> bytes:
        """Return the decompressed piece; of a larger one a little more than `max_bytes`."""
        self._fed_bytes += len(data)
        for number, decoder in enumerate(self._decoders, 1):
            try:
                data = decoder.feed(data, max_bytes)
            except (zlib.error, brotli.error, zstandard.ZstdError) as error:
                raise self._damaged(str(error)) from error
            if len(data) > max_bytes and number < len(self._decoders):
                raise Rejected("a body compressed twice unpacks to too much data", code="too_large")
        self._produced_bytes += len(data)
        return data

    def finish(self) -> None:
        """Check that the body is whole. Raises IncompleteBody, or Rejected if it is not compressed as declared."""
        if self._fed_bytes and not all(decoder.is_complete for decoder in self._decoders):
            raise self._damaged("it ends early", is_compressed=self._fed_bytes >= MIN_BYTES)

    def _damaged(self, why: str, *, is_compressed: bool = False) -> Rejected | IncompleteBody:
        message = f"the compressed body is damaged: {why}"
        return IncompleteBody(message) if is_compressed or self._produced_bytes else Rejected(message, code=CODE)


def _codings(encoding: str) -> list[str]:
    """Return the compressions named by the header; charsets and other words that name none are left out."""
    names = [name.strip().lower() for name in encoding.split(",")]
    unknown = next((name for name in names if name not in _DECODERS and not _is_no_coding(name)), None)
    if unknown is not None:
        raise Rejected(f"the content encoding {unknown[:40]!r} is not supported", code=CODE)
    return [name for name in names if name in _DECODERS]


def _is_no_coding(name: str) -> bool:
    if name in _NO_CODINGS or "/" in name:
        return True
    try:
        return bool(codecs.lookup(name)._is_text_encoding)
    except (LookupError, ValueError):
        return False


def _new_decoder(name: str, *, is_sure: bool) -> Decoder:
    decoder = _DECODERS[name]()
    mark = {"gzip": _GZIP_MARK, "x-gzip": _GZIP_MARK, "zstd": _ZSTD_MARK}.get(name)
    return decoder if is_sure or mark is None else _IfMarked(decoder, mark)


class _IfMarked:
    """Applies a decoder only to data that begins with its mark; other data passes unchanged."""

    def __init__(self, decoder: Decoder, mark: bytes) -> None:
        self._decoder, self._mark = decoder, mark
        self._head, self._is_marked = b"", None

    _is_marked: bool | None

    @property
    def is_complete(self) -> bool:
        return self._decoder.is_complete if self._is_marked else not self._head

    def feed(self, data: bytes, max_bytes: int) -> bytes:
        if self._is_marked is None:
            self._head += data
            if len(self._head) < len(self._mark) and self._mark.startswith(self._head):
                return b""
            self._is_marked, data, self._head = self._head.startswith(self._mark), self._head, b""
        return self._decoder.feed(data, max_bytes) if self._is_marked else data


class _Zlib:
    """gzip of one or several members, or zlib; anything after the last member is ignored, as browsers do."""

    def __init__(self, *, may_be_raw: bool = False) -> None:
        self._may_be_raw = may_be_raw  # some servers send deflate without the zlib frame
        self._head = b""  # the bytes so far, while they may turn out to be raw deflate
        self._stream = zlib.decompressobj(_GZIP_OR_ZLIB)
        self._is_over = self._is_between_members = False
        self.is_complete = True

    def feed(self, data: bytes, max_bytes: int) -> bytes:
        parts, size = [], 0
        while data and size <= max_bytes and not self._is_over:
            if self._is_between_members:  # another member or padding may follow
                data = data.lstrip(b"\0")
                self._is_over = not data.startswith(_GZIP_MARK[: len(data)])
                self._is_between_members = not data
                if self._is_over or not data:
                    break
            part = self._inflate(data, max_bytes + 1 - size)
            parts.append(part)
            size += len(part)
            self.is_complete = self._is_between_members = self._stream.eof
            data = self._stream.unconsumed_tail
            if self._stream.eof:
                data, self._stream = self._stream.unused_data, zlib.decompressobj(_GZIP_OR_ZLIB)
        return b"".join(parts)

    def _inflate(self, data: bytes, max_bytes: int) -> bytes:
        try:
            part = self._stream.decompress(data, max_bytes)
        except zlib.error:
            if not self._may_be_raw:
                raise
            self._may_be_raw, self._stream = False, zlib.decompressobj(-zlib.MAX_WBITS)
            return self._stream.decompress(self._head + data, max_bytes)
        self._head = (self._head + data)[:2]
        self._may_be_raw = self._may_be_raw and len(self._head) < 2  # the frame's two bytes were valid
        return part


class _Brotli:
    def __init__(self) -> None:
        self._stream = brotli.Decompressor()

    @property
    def is_complete(self) -> bool:
        return bool(self._stream.is_finished())

    def feed(self, data: bytes, max_bytes: int) -> bytes:
        if self._stream.is_finished():
            return b""
        parts = [self._stream.process(data, output_buffer_limit=max_bytes + 1)]
        size = len(parts[0])
        while size <= max_bytes and not self._stream.can_accept_more_data():
            parts.append(self._stream.process(b"", output_buffer_limit=max_bytes + 1 - size))
            size += len(parts[-1])
        return b"".join(parts)


class _Zstd:
    def __init__(self) -> None:
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_ZSTD_WINDOW_BYTES)
        self._stream = self._decompressor.decompressobj()
        self.is_complete = True

    def feed(self, data: bytes, max_bytes: int) -> bytes:
        parts, size, position = [], 0, 0
        while position < len(data) and size <= max_bytes:
            if self._stream.eof:  # another frame follows
                self._stream = self._decompressor.decompressobj()
            piece = data[position : position + _ZSTD_PIECE_BYTES]
            part = self._stream.decompress(piece)
            parts.append(part)
            size += len(part)
            position += len(piece) - len(self._stream.unused_data)
            self.is_complete = self._stream.eof
        return b"".join(parts)


def _new_deflate() -> _Zlib:
    return _Zlib(may_be_raw=True)


_DECODERS: dict[str, Callable[[], Decoder]] = {
    "gzip": _Zlib, "x-gzip": _Zlib, "deflate": _new_deflate, "br": _Brotli, "zstd": _Zstd,
}  # fmt: skip
