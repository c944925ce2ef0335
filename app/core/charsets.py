"""Text encodings by the labels of the WHATWG Encoding Standard, as browsers read them.

A label from outside must never reach `bytes.decode`: Python also knows punycode, utf-7, unicode_escape and others, some
of which take quadratic time. All codecs here take linear time.
"""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import Callable
from functools import lru_cache

from webencodings.labels import LABELS

DEFAULT_CODEC = "cp1252"
# Longer texts are no labels.
MAX_LABEL_CHARACTERS = 40
# Text is decoded in pieces: the interpreter runs other threads between two of them.
PIECE_BYTES = 64 * 1024
# A longer body is decoded in a thread.
MAX_BYTES_ON_LOOP = 32 * 1024

_SINGLE_BYTE = {
    "ibm866": "cp866", "iso-8859-8-i": "iso-8859-8", "koi8-r": "koi8-r", "koi8-u": "koi8-u", "macintosh": "mac-roman",
    "windows-874": "cp874", "x-mac-cyrillic": "mac-cyrillic",
    **{f"iso-8859-{part}": f"iso-8859-{part}" for part in (2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 15, 16)},
    **{f"windows-{page}": f"cp{page}" for page in range(1250, 1259)},
    # The standard reads this label of a page as windows-1252.
    "x-user-defined": DEFAULT_CODEC,
}  # fmt: skip
_MULTI_BYTE = {
    "utf-8": "utf-8", "utf-16be": "utf-16-be", "utf-16le": "utf-16-le", "gbk": "gb18030", "gb18030": "gb18030",
    "big5": "big5hkscs", "euc-jp": "euc_jp", "iso-2022-jp": "iso2022_jp", "shift_jis": "cp932", "euc-kr": "cp949",
}  # fmt: skip
# Encodings by their name in the standard; `replacement`, which stands for encodings that hide markup, has no codec.
_CODECS = _SINGLE_BYTE | _MULTI_BYTE
_MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
_ASCII_BLANKS = " \t\n\f\r"


def encoding_of(label: str | None) -> str | None:
    """Return Python's codec for a label such as `x-sjis`; None if the standard does not have the label."""
    text = (label or "").strip(_ASCII_BLANKS)
    if not text.isascii() or len(text) > MAX_LABEL_CHARACTERS:
        return None
    return _CODECS.get(LABELS.get(text.lower(), ""))


def encoding_of_mark(data: bytes) -> tuple[str, int] | None:
    """Return the codec and the length of the byte order mark at the beginning; None without one."""
    return next(((codec, len(mark)) for mark, codec in _MARKS if data.startswith(mark)), None)


def decode(data: bytes, label: str | None = None) -> str:
    """Decode by byte order mark, else by the label, else as UTF-8, else as Windows-1252.

    Bytes that are invalid in the encoding become U+FFFD. An unknown label counts as none. A mark is removed.
    """
    mark = encoding_of_mark(data)
    if mark is not None:
        codec, start = mark
        return _decode(data, codec, start)
    named = encoding_of(label)
    if named is not None:
        return _decode(data, named)
    try:
        return _decode(data, "utf-8", errors="strict")
    except UnicodeDecodeError:
        return _decode(data, DEFAULT_CODEC)


async def decode_off_loop(data: bytes, label: str | None = None) -> str:
    """Decode like decode(); a long body in a thread."""
    return await run_off_loop(len(data), lambda: decode(data, label))


async def run_off_loop(size_bytes: int, work: Callable[[], str]) -> str:
    """Return the result of work on so many bytes; done in a thread if they are many."""
    return work() if size_bytes <= MAX_BYTES_ON_LOOP else await asyncio.to_thread(work)


def _decode(data: bytes, codec: str, start: int = 0, *, errors: str = "replace") -> str:
    view = memoryview(data)
    pieces = [view[place : place + PIECE_BYTES] for place in range(start, len(view), PIECE_BYTES)]
    if codec in _SINGLE_BYTE.values():
        table = _table(codec)
        return "".join(codecs.charmap_decode(piece, "strict", table)[0] for piece in pieces)
    decoder = codecs.getincrementaldecoder(codec)(errors)
    parts = [decoder.decode(bytes(piece)) for piece in pieces]
    return "".join([*parts, decoder.decode(b"", True)])


@lru_cache
def _table(codec: str) -> str:
    """Return the 256 characters of a single-byte encoding.

    As in the standard, bytes 0x80 to 0x9F without a character are control characters, others are U+FFFD. With a
    complete table no byte is an error, and errors are slow.
    """
    characters = [bytes([byte]).decode(codec, "replace") for byte in range(256)]
    missing = [byte for byte in range(0x80, 0xA0) if characters[byte] == "\ufffd"]
    for byte in missing:
        characters[byte] = chr(byte)
    return "".join(characters)
