"""Labels as browsers read them, and no other codec of Python behind any of them."""

from __future__ import annotations

import codecs
import encodings.aliases
import time

import pytest
from webencodings.labels import LABELS

from app.core.charsets import MAX_SEARCHED_BYTES, declared_label, decode, encoding_of

# Codecs that Python finds and no browser does; several take quadratic time.
PYTHON_ONLY = (
    "punycode", "idna", "utf-7", "utf7", "unicode_escape", "raw_unicode_escape", "rot13", "rot_13", "zip", "zlib",
    "bz2", "hex", "base64", "uu", "quopri", "undefined", "utf-8-sig", "utf-32", "mbcs", "oem", "cp037", "cp65001", "hz",
    "iso2022_kr", "charmap", "palmos",
)  # fmt: skip


@pytest.mark.parametrize(
    ("label", "codec"),
    [
        ("utf-8", "utf-8"), (" UTF8\n", "utf-8"), ("iso-8859-1", "cp1252"), ("latin1", "cp1252"),
        ("us-ascii", "cp1252"), ("iso-8859-9", "cp1254"), ("tis-620", "cp874"), ("gb2312", "gb18030"),
        ("GBK", "gb18030"), ("x-sjis", "cp932"),
        ("Shift_JIS", "cp932"), ("ks_c_5601-1987", "cp949"), ("big5", "big5hkscs"), ("utf-16", "utf-16-le"),
        ("logical", "iso-8859-8"), ("macintosh", "mac-roman"), ("x-user-defined", "cp1252"), ("koi8_r", "koi8-r"),
    ],
)  # fmt: skip
def test_a_label_means_what_browsers_read(label: str, codec: str) -> None:
    assert encoding_of(label) == codec


@pytest.mark.parametrize("label", [*PYTHON_ONLY, "", None, "none", "iso-2022-kr", "utf–8", "utf-8" * 100, "UTF-8\xa0"])
def test_no_other_label_has_a_codec(label: str | None) -> None:
    assert encoding_of(label) is None
    assert decode(b"caf\xc3\xa9 +AGE- \\u0041", label) == "café +AGE- \\u0041"


def test_every_codec_of_python_is_behind_a_label_of_the_standard_or_unreachable() -> None:
    names = {*encodings.aliases.aliases, *encodings.aliases.aliases.values(), *PYTHON_ONLY}
    assert {name for name in names if encoding_of(name) is not None} <= LABELS.keys()
    for label, name in LABELS.items():
        codec = encoding_of(label)
        assert (codec is None) == (name == "replacement"), label
        assert codec is None or codecs.lookup(codec)


@pytest.mark.parametrize(
    ("data", "label", "text"),
    [
        ("日本語①".encode("cp932"), "shift_jis", "日本語①"),
        ("汉字€".encode("gb18030"), "gb2312", "汉字€"),
        (b"\x93quoted\x94 \x81", "iso-8859-1", "“quoted” \x81"),
        (b"caf\xe9", None, "café"),
        (b"\xef\xbb\xbfcaf\xc3\xa9", "iso-8859-1", "café"),
        ("é".encode("utf-16"), "utf-8", "é"),
        (b"a\xffb", "utf-8", "a\ufffdb"),
        (b"a\xd2b", "windows-1253", "a\ufffdb"),
        (b"", "gbk", ""),
    ],
)
def test_decoding_replaces_errors_in_the_named_encoding(data: bytes, label: str | None, text: str) -> None:
    assert decode(data, label) == text


@pytest.mark.parametrize(
    ("html", "label"),
    [
        (b'<!doctype html><META charset="GBK">', "GBK"),
        (b"<meta http-equiv=content-type content='text/html; charset=x-sjis'>", "x-sjis"),
        (b'<?xml version="1.0" encoding="koi8-r"?><html/>', "koi8-r"),
        (b"<meta charset=utf-16>", "utf-8"),
        (b"<meta name=a><p>charset=gbk</p>", None),
        (b" " * 5000 + b"<meta charset=gbk>", "gbk"),
        (b"<!-- <meta charset=gbk> --><script>'<meta charset=gbk>'</script><p>", None),
        (b" " * MAX_SEARCHED_BYTES + b"<meta charset=gbk>", None),
        (b"<meta " * 1000, None),
    ],
)
def test_a_page_declares_its_label(html: bytes, label: str | None) -> None:
    assert declared_label(html) == label


@pytest.mark.parametrize("label", ["utf-8", "windows-1252", "gb18030", "shift_jis", "iso-2022-jp", "utf-16le"])
def test_a_character_across_two_pieces_stays_whole(label: str) -> None:
    text = "é" * 200_001 if label == "windows-1252" else "日本" * 100_001
    codec = encoding_of(label)
    assert codec is not None
    assert decode(b"a" * (label != "utf-16le") + text.encode(codec), label).removeprefix("a") == text


@pytest.mark.parametrize("name", sorted(set(LABELS.values()) - {"replacement"}))
@pytest.mark.parametrize("pattern", [b"\x81", b"\xff", b"\x1b$B", b"a-", b"\x81\x30"])
def test_no_bytes_take_more_than_linear_time(name: str, pattern: bytes) -> None:
    """A megabyte of the worst bytes takes well under a second; quadratic codecs take minutes."""
    data = pattern * (1_000_000 // len(pattern))
    began = time.process_time()
    decode(data, name)
    assert time.process_time() - began < 1.5
