"""Documents nested without bound: refused at once and for good, whatever carries the nesting."""

from __future__ import annotations

import asyncio
import email.message
import email.policy
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import InvalidInput
from app.documents.extract.html_depth import MAX_DEPTH, check_depth
from app.documents.files import sniff
from app.documents.ingest.ingest import EXTRACT_FILE, extract_html
from app.jobs.sandbox import call, process_pool
from app.sources.fetching.links import INSPECT

MIB = 1024 * 1024
# The same page took 25 s, and twice as much for the fourfold time.
MAX_REFUSAL_S = 15.0

DEEP = {
    "blocks": "<div>" * (2 * MIB // 5),
    "inline": "<b>" * (MIB // 3),
    "lists": "<ul><li>" * (MIB // 8),
    "tables": "<table><tr><td>" * (MIB // 15),
    "upper case": "<DIV>" * (MIB // 5),
    "attributes": "<div class='a>b'>" * (MIB // 17),
    "slashes that do not close": "<div/>" * (MIB // 6),
    "pictures": "<svg>" + "<g>" * (MIB // 3),
    "HTML that ends a picture": "<svg>" + "<div/>" * (MIB // 6),
    "after much that is closed": "<p>x</p>" * 10_000 + "<section>" * 12_000,
    "after a comment": "<!-- > -->" + "<div>" * 12_000,
    "after a script": "<script>if (a < b) {}</script>" + "<div>" * 12_000,
    "formatting that each block opens again": "".join(f"<p><font size={number}>x" for number in range(20_000)),
    "options of one list": "<select>" + "<option>x" * 100_000,
    "attributes of one element": "<p " + " ".join(f"a{number}=1" for number in range(100_000)) + ">x",
    "attributes without values": "<p " + " ".join(f"a{number}" for number in range(100_000)),
    "wrong end tags": "<div></p>" * 12_000,
}
FLAT = {
    "paragraphs": "<p>x" * 50_000,
    "items": "<ul>" + "<li>x" * 50_000 + "</ul>",
    "items with unclosed words": "<ul>" + "<li><b>x" * 10_000,
    "paragraphs with unclosed words": "<p><i>x" * 10_000,
    "formatting that is closed": "".join(f"<p><font size={number}>x</font>" for number in range(20_000)),
    "links without ends": "".join(f"<p><a href={number}>x" for number in range(20_000)),
    "a picture in a value": "<img src='data:" + "x y=" * 50_000 + "'>",
    "rows": "<table>" + "<tr><td>a<td>b" * 20_000,
    "options": ("<select>" + "<option>x" * 1_000 + "</select>") * 50,
    "definitions": "<dl>" + "<dt>a<dd>b" * 20_000,
    "links": "<a href=x>y" * 20_000,
    "headings": "<h2>x" * 10_000,
    "breaks": "x<br>" * 50_000 + "<img src=a><hr><input>" * 10_000,
    "tags in a comment": "<!--" + "<div>" * 50_000 + "-->x",
    "tags in a script": "<script>" + "'<div>'" * 50_000 + "</script>",
    "tags in values": "<p title='<div><div>'>" * 20_000,
    "shapes": "<svg>" + "<path d='M0'/>" * 50_000 + "</svg>",
    "closed": "<div><span>x</span></div>" * 20_000,
    "comparisons": "a < b " * 50_000,
    "as deep as allowed": "<div>" * (MAX_DEPTH - 2) + "x",
}


@pytest.fixture(scope="module", autouse=True)
def _pool() -> Iterator[None]:
    process_pool.stop_pool()
    process_pool.start_pool(1)
    yield
    process_pool.stop_pool()


@pytest.mark.parametrize("name", DEEP)
def test_deep_html_is_refused_by_one_look(name: str) -> None:
    started = time.monotonic()
    with pytest.raises(InvalidInput, match=r"nested more than|more than [25]0?,000 (attributes|options)") as caught:
        check_depth(DEEP[name])
    assert caught.value.code == "broken_document"
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("name", FLAT)
def test_flat_html_is_not_taken_for_deep(name: str) -> None:
    assert check_depth(FLAT[name]) == FLAT[name]


@pytest.mark.parametrize("page", ["<" * 2 * MIB, "<a " * MIB, '<a b="' * MIB, "<!--" * MIB, "<script>" * (MIB // 4)])
def test_the_look_takes_time_in_proportion(page: str) -> None:
    started = time.monotonic()
    with suppress(InvalidInput):
        check_depth(page)
    assert time.monotonic() - started < 5


def test_a_deep_page_ends_its_job_for_good(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(InvalidInput) as caught:
        asyncio.run(extract_html(DEEP["blocks"], None))
    assert caught.value.code == "broken_document"
    (tmp_path / "page.html").write_text(DEEP["lists"])
    arguments = {"url": "http://host/", "robots_tag": None, "agent": "x"}
    with pytest.raises(InvalidInput) as caught:
        asyncio.run(call.parse(INSPECT, arguments, blob=tmp_path / "page.html", time_limit_s=20))
    assert caught.value.code == "broken_document"
    assert time.monotonic() - started < MAX_REFUSAL_S


@pytest.mark.parametrize("inner", ["multipart/mixed", "message/rfc822"])
def test_a_deep_mail_ends_its_job_for_good(inner: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        _extract(_nested_mail(inner, 1_000), sniff.EML, tmp_path)
    assert caught.value.code == "broken_document"


def test_a_mail_of_usual_depth_is_read(tmp_path: Path) -> None:
    _extract(_nested_mail("multipart/mixed", 20), sniff.EML, tmp_path)
    assert "the innermost words" in (tmp_path / "original.md").read_text()


def test_a_mail_with_a_deep_page_ends_its_job_for_good(tmp_path: Path) -> None:
    message = email.message.EmailMessage(policy=email.policy.default)
    message["Subject"] = "Hello"
    message.set_content(DEEP["lists"], subtype="html")
    with pytest.raises(InvalidInput) as caught:
        _extract(message.as_bytes(), sniff.EML, tmp_path)
    assert caught.value.code == "broken_document"


def test_a_pdf_whose_filters_unpack_without_bound_ends_its_job_for_good(tmp_path: Path) -> None:
    started = time.monotonic()
    data = _pdf_with_filters()
    assert len(data) < 4096
    with pytest.raises(InvalidInput) as caught:
        _extract(data, sniff.PDF, tmp_path, memory_mb=300)
    assert caught.value.code in ("broken_document", "empty_document")
    assert time.monotonic() - started < 60


def _extract(data: bytes, media_type: str, folder: Path, **options: Any) -> Any:
    blob = folder / "original"
    blob.write_bytes(data)
    arguments = {"name": "a file", "media_type": media_type}
    return asyncio.run(call.parse(EXTRACT_FILE, arguments, blob=blob, time_limit_s=60, **options))


def _nested_mail(inner: str, depth: int) -> bytes:
    """A mail in which each part holds the next one."""
    head, tail = ["From: a@host\nSubject: Hello\nMIME-Version: 1.0\n"], []
    for level in range(depth):
        if inner == "message/rfc822":
            head.append("Content-Type: message/rfc822\n\nSubject: inner\n")
        else:
            head.append(f'Content-Type: multipart/mixed; boundary="b{level}"\n\n--b{level}\n')
            tail.append(f"\n--b{level}--\n")
    return "".join([*head, "Content-Type: text/plain\n\nthe innermost words\n", *reversed(tail)]).encode()


def _pdf_with_filters() -> bytes:
    """A page whose content was compressed again and again: a gigabyte of blanks in about a kilobyte."""
    compressor = zlib.compressobj(9)
    content = b"".join(compressor.compress(b" " * MIB) for _ in range(1024)) + compressor.flush()
    filters = "/FlateDecode"
    while len(content) > 2000:
        content, filters = zlib.compress(content, 9), filters + " /FlateDecode"
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 100 100] /Contents 4 0 R >>",
        b"<< /Length %d /Filter [%s] >>\nstream\n%s\nendstream" % (len(content), filters.encode(), content),
    ]
    data, places = b"%PDF-1.4\n", []
    for number, item in enumerate(objects, 1):
        places.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, item)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    return data + b"xref\n0 5\n0000000000 65535 f \n%strailer\n<< /Size 5 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % (
        table,
        len(data),
    )
