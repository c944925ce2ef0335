"""Error pages, cut bodies and empty ones never become the text of a page; temporary faults are tried again."""

from __future__ import annotations

import asyncio
import gzip
import os
import zlib
from dataclasses import replace

import brotli
import pytest
import zstandard

from app.core.errors import OutsideError, Rejected, Unavailable
from app.sources.fetching.page_text import PageText, fetch
from tests.fakes.server import Response
from tests.fakes.site import FakeSite
from tests.fakes.site import page as site_page
from tests.support.databases import SettingsEnv

HTML = "<html><head><title>Mühlen</title></head><body><p>" + "Das Wasser treibt die Räder. " * 90 + "</p></body></html>"
# Incompressible, so that half of it is text already.
PAGE = HTML.encode() + b"<!--" + os.urandom(2000).hex().encode() + b"-->"
PACKINGS = {
    "gzip": gzip.compress, "deflate": zlib.compress, "br": brotli.compress, "zstd": zstandard.compress,
    "gzip, gzip": lambda body: gzip.compress(gzip.compress(body)),
}  # fmt: skip


@pytest.fixture(autouse=True)
def private(settings_env: SettingsEnv) -> None:
    settings_env(fetch_private="true", fetch_timeout_s=5)


def _fetch(url: str) -> PageText:
    return asyncio.run(fetch(url))


def _packed(body: bytes, named: str) -> Response:
    return site_page(body, headers={"content-type": "text/html; charset=utf-8", "content-encoding": named})


@pytest.mark.parametrize("packing", PACKINGS)
def test_half_a_compressed_body_is_no_page(site: FakeSite, packing: str) -> None:
    """Although its length is the declared one, as behind a proxy that kept what it had."""
    whole = PACKINGS[packing](PAGE)
    site.pages["/"] = _packed(whole, packing)
    assert _fetch(f"{site.url}/").text == PAGE.decode()
    for size in (len(whole) // 2, len(whole) - 2, 20):
        site.pages["/"] = _packed(whole[:size], packing)
        with pytest.raises(Unavailable) as refused:
            _fetch(f"{site.url}/")
        assert refused.value.code == "incomplete_body", size


@pytest.mark.parametrize("is_packed", [False, True])
def test_a_body_shorter_than_its_length_is_no_page(site: FakeSite, is_packed: bool) -> None:
    response = Response(PAGE, headers={"content-type": "text/html"}, gzipped=is_packed, withheld_bytes=100)
    site.pages["/"] = response
    with pytest.raises(Unavailable):
        _fetch(f"{site.url}/")
    site.pages["/"] = replace(response, withheld_bytes=0)
    assert "Räder" in _fetch(f"{site.url}/").text


def test_damage_within_a_compressed_body_is_no_page(site: FakeSite) -> None:
    whole = bytearray(gzip.compress(PAGE))
    whole[len(whole) // 2] ^= 0xFF
    site.pages["/"] = _packed(bytes(whole), "gzip")
    with pytest.raises(OutsideError):
        _fetch(f"{site.url}/")


def test_a_part_of_a_page_is_no_page(site: FakeSite) -> None:
    headers = {"content-type": "text/html; charset=utf-8", "content-range": "bytes 0-99/5000"}
    site.pages["/"] = site_page(HTML.encode()[:100], 206, headers)
    with pytest.raises(Unavailable) as refused:
        _fetch(f"{site.url}/")
    assert refused.value.code == "incomplete_body"
    size = len(HTML.encode())
    site.pages["/"] = site_page(HTML.encode(), 206, {**headers, "content-range": f"bytes 0-{size - 1}/{size}"})
    assert _fetch(f"{site.url}/").text == HTML


@pytest.mark.parametrize("body", [b"", b" \n\t ", b"\xef\xbb\xbf", b"\xff\xfe"])
@pytest.mark.parametrize("status", [200, 202, 204])
def test_an_empty_page_is_tried_again(site: FakeSite, body: bytes, status: int) -> None:
    site.pages["/"] = site_page(b"" if status == 204 else body, status)
    with pytest.raises(Unavailable) as refused:
        _fetch(f"{site.url}/")
    assert refused.value.code == "no_content"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 451, 408, 425, 429, 500, 502, 503, 504, 521, 599])
def test_an_error_page_is_refused_whatever_its_body(site: FakeSite, status: int) -> None:
    """Temporary errors may pass, the others are final; even a body that cannot be read does not change that."""
    for body, encoding in ((HTML.encode(), "identity"), (b"\x1f\x8bdamaged, and long enough", "gzip"), (b"", "x-odd")):
        headers = {"content-type": "text/html", "content-encoding": encoding, "refresh": "0; url=/home"}
        site.pages["/"] = site_page(body, status, headers)
        is_temporary = status in (408, 425, 429) or status >= 500
        with pytest.raises(Unavailable if is_temporary else Rejected, match=str(status)):
            _fetch(f"{site.url}/")
    assert {path for path, _ in site.visits} == {"/"}
