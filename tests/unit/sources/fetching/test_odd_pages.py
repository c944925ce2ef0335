"""Odd but common answers of servers are read as browsers read them."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable

import brotli
import pytest
import zstandard

from app.core.errors import Rejected, TooManyRedirects
from app.sources.fetching.download import MAX_REDIRECTS
from app.sources.fetching.page_text import PageText, fetch
from app.sources.fetching.polite_fetch import fetch_politely
from tests.fakes.server import Request, Response
from tests.fakes.site import FakeSite
from tests.fakes.site import page as site_page
from tests.support.databases import SettingsEnv

WORDS = "Das Wasser treibt die Räder. " * 30
HTML = f"<html><head><title>Mühlen</title></head><body><p>{WORDS}</p></body></html>"


@pytest.fixture(autouse=True)
def private(settings_env: SettingsEnv, redis_url: str) -> None:
    settings_env(
        fetch_private="true", fetch_timeout_s=20, fetch_host_delay_s=0, fetch_javascript="off", redis_url=redis_url
    )


def _fetch(url: str) -> PageText:
    return asyncio.run(fetch(url))


def _twice(body: bytes) -> bytes:
    return gzip.compress(gzip.compress(body))


@pytest.mark.parametrize(
    ("named", "pack"),
    [
        ("none", bytes), ("None", bytes), ("utf-8", bytes), ("UTF8", bytes), ("ISO-8859-1", bytes), ("", bytes),
        ("identity, identity", bytes), ("binary", bytes), ("aws-chunked", bytes), ("text/html", bytes),
        ("gzip, gzip", _twice), ("gzip, gzip", gzip.compress), ("gzip,identity", gzip.compress),
        ("none, gzip", gzip.compress), ("X-GZip", gzip.compress), ("utf-8, gzip", gzip.compress),
        ("br", brotli.compress), ("zstd", zstandard.compress), ("BR", brotli.compress),
        ("gzip, br", lambda body: brotli.compress(gzip.compress(body))),
        ("gzip", lambda body: gzip.compress(body) + b"\r\n"), ("gzip", lambda body: gzip.compress(body) + bytes(8)),
    ],
)  # fmt: skip
def test_content_encodings(site: FakeSite, named: str, pack: Callable[[bytes], bytes]) -> None:
    headers = {"content-type": "text/html; charset=utf-8", "content-encoding": named}
    site.pages["/"] = site_page(pack(HTML.encode()), headers=headers)
    assert _fetch(f"{site.url}/").text == HTML
    assert {"br", "gzip", "zstd"} <= {word.strip() for word in site.requests[-1].headers["accept-encoding"].split(",")}


@pytest.mark.parametrize("named", ["br", "zstd", "gzip, gzip"])
def test_bombs_in_every_compression(site: FakeSite, settings_env: SettingsEnv, named: str) -> None:
    settings_env(fetch_max_bytes=50_000)
    zeros = bytes(20_000_000)
    if named == "br":
        body = brotli.compress(zeros, quality=1)
    else:
        body = zstandard.compress(zeros) if named == "zstd" else _twice(zeros)
    site.pages["/"] = site_page(body, headers={"content-type": "text/html", "content-encoding": named})
    with pytest.raises(Rejected) as refused:
        _fetch(f"{site.url}/")
    assert refused.value.code == "too_large"


@pytest.mark.parametrize("named", ["compress", "sdch", "gzip, exi"])
def test_encodings_that_nobody_can_read_are_refused(site: FakeSite, named: str) -> None:
    site.pages["/"] = site_page(HTML.encode(), headers={"content-type": "text/html", "content-encoding": named})
    with pytest.raises(Rejected) as refused:
        _fetch(f"{site.url}/")
    assert refused.value.code == "content_encoding"


@pytest.mark.parametrize(
    "media_type", ["", " ", ";charset=utf-8", "*/*", "html", "unknown/unknown", "text/html, text/html"]
)
def test_media_types_that_name_none(site: FakeSite, media_type: str) -> None:
    site.pages["/"] = site_page(HTML.encode(), headers={"content-type": media_type})
    page = _fetch(f"{site.url}/")
    assert (page.format, page.text) == ("html", HTML)


def test_twenty_redirects_and_no_more(site: FakeSite) -> None:
    for number in range(25):
        site.pages[f"/{number}"] = site_page(status=302, headers={"location": f"/{number + 1}"})
    site.pages["/25"] = site_page(HTML.encode())
    assert _fetch(f"{site.url}/{25 - MAX_REDIRECTS}").text == HTML and MAX_REDIRECTS == 20
    with pytest.raises(TooManyRedirects):
        _fetch(f"{site.url}/{25 - MAX_REDIRECTS - 1}")


def test_cookies_go_back_within_one_chain_of_redirects(site: FakeSite) -> None:
    """To their own host and path only, and not with the next page."""
    other = site.url.replace("127.0.0.1", "localhost")

    def respond(request: Request) -> Response:
        if request.target == "/a":
            return site_page(status=302, headers={"location": "/b", "set-cookie": "one=1; Path=/"})
        if request.target == "/b":
            headers = {"content-type": "text/html", "set-cookie": "two=2; Path=/private"}
            return site_page(b"<meta http-equiv=refresh content='0;url=/c'><p>Wait.</p>", headers=headers)
        if request.target == "/c":
            return site_page(status=302, headers={"location": f"{other}/d", "set-cookie": "one=; Max-Age=0; Path=/"})
        return site_page(HTML.encode()) if request.target == "/d" else site_page(status=404)

    site.respond = respond  # type: ignore[method-assign]
    for _ in range(2):
        assert asyncio.run(fetch_politely(f"{site.url}/a")).text == HTML
        sent = [
            (request.target, request.headers.get("cookie"))
            for request in site.requests
            if request.target != "/robots.txt"
        ]
        assert sent == [("/a", None), ("/b", "one=1"), ("/c", "one=1"), ("/d", None)]
        site.requests.clear()


@pytest.mark.parametrize(
    ("head", "encoding"),
    [
        ("<!-- " + "x" * 9000 + ' --><meta charset="iso-8859-2">', "iso-8859-2"),
        ("<script>" + "x" * 90_000 + "</script><meta charset=windows-1251>", "cp1251"),
        ('<!-- <meta charset="utf-8"> --><meta http-equiv=Content-Type content="text/html; charset=koi8-r">', "koi8-r"),
        ('<script>"<meta charset=koi8-r>"</script><meta charset="shift_jis">', "cp932"),
        ('<meta name="description" content="charset=koi8-r"><meta charset="x-sjis">', "cp932"),
        ('<meta charset="nonsense"><meta charset="gb2312">', "gb18030"),
        ('<meta charset="utf-16">', "utf-8"),
        ("<meta charset='iso-8859-1'>", "cp1252"),
    ],
)
def test_charsets_named_late_or_oddly(site: FakeSite, head: str, encoding: str) -> None:
    text = {
        "iso-8859-2": "Žluťoučký kůň", "cp1251": "Мельница у реки", "koi8-r": "Мельница у реки", "cp932": "水車小屋",
        "gb18030": "水磨坊", "utf-8": "Räder", "cp1252": "Räder – „Mühle“ €",
    }[encoding]  # fmt: skip
    body = f"<html><head>{head}</head><body><p>{text}</p></body></html>".encode(encoding)
    site.pages["/"] = site_page(body, headers={"content-type": "text/html"})
    assert text in _fetch(f"{site.url}/").text


def test_the_xml_declaration_of_a_page_names_its_charset(site: FakeSite) -> None:
    body = '<?xml version="1.0" encoding="iso-8859-2"?><html><body><p>Žluťoučký kůň</p></body></html>'
    site.pages["/"] = site_page(body.encode("iso-8859-2"), headers={"content-type": "application/xhtml+xml"})
    assert "Žluťoučký" in _fetch(f"{site.url}/").text


def test_one_bad_byte_does_not_change_the_encoding(site: FakeSite) -> None:
    """And a wrong declaration does not spoil the page."""
    site.pages["/"] = site_page(WORDS.encode() + b"\xff", headers={"content-type": "text/plain; charset=utf-8"})
    assert "Räder" in _fetch(f"{site.url}/").text
    site.pages["/"] = site_page(WORDS.encode() + b"\xff", headers={"content-type": "text/plain"})
    assert "Räder" in _fetch(f"{site.url}/").text
    site.pages["/"] = site_page(WORDS.encode("cp1252"), headers={"content-type": "text/plain; charset=utf-8"})
    assert "Räder" in _fetch(f"{site.url}/").text
