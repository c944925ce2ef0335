"""Pages of sitemaps: indexes, compressed files and plain lists, within limits."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.core.errors import InvalidInput
from app.sources.fetching.sitemap import MAX_FILE_BYTES, MAX_FILES, MAX_PAGES, SitemapEntry, SitemapReport, entries
from app.sources.fetching.sitemap_parser import read_sitemap
from tests.fakes.server import Request, Response
from tests.fakes.site import FakeSite
from tests.fakes.site import page as site_page
from tests.support.databases import SettingsEnv

XML = {"content-type": "application/xml"}
HEAD = '<?xml version="1.0" encoding="UTF-8"?>'
SPACE = 'xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"'


@pytest.fixture
def asking(settings_env: SettingsEnv, redis_url: str, site: FakeSite) -> FakeSite:
    settings_env(redis_url=redis_url, fetch_private="true", fetch_host_delay_s=0, crawl_retry_delays="0.01,0.01")
    return site


def _urls(*urls: str) -> bytes:
    return f"{HEAD}<urlset {SPACE}>{''.join(f'<url><loc>{one}</loc></url>' for one in urls)}</urlset>".encode()


def _index(*urls: str) -> bytes:
    inner = "".join(f"<sitemap><loc>{url}</loc></sitemap>" for url in urls)
    return f"{HEAD}<sitemapindex {SPACE}>{inner}</sitemapindex>".encode()


def _all(url: str, most: int = 1000, report: SitemapReport | None = None) -> list[SitemapEntry]:
    async def run() -> list[SitemapEntry]:
        return [entry async for entry in entries(url, max_pages=most, report=report)]

    return asyncio.run(run())


def _paths(site: FakeSite, entries: list[SitemapEntry]) -> list[str]:
    return [entry.url.removeprefix(site.url) for entry in entries]


def test_an_index_with_files_of_every_kind(asking: FakeSite) -> None:
    """The sitemaps in robots.txt are read; each page appears once, and none of another host."""
    asking.pages["/robots.txt"] = site_page(b"Sitemap: /maps/index.xml\n", headers={"content-type": "text/plain"})
    asking.pages["/maps/index.xml"] = site_page(
        _index("a.xml", "/b.xml.gz", f"{asking.url}/c.txt", "/gone.xml"), headers=XML
    )
    dated = f"<url><loc> {asking.url}/one?a=1&amp;b=2 </loc><lastmod>2026-11-28T09:00:00+01:00</lastmod></url>"
    day = f"<url><lastmod>2026-11-27</lastmod><loc>{asking.url}/two</loc></url><url><lastmod>2026-11-27</lastmod></url>"
    asking.pages["/maps/a.xml"] = site_page(f"{HEAD}<urlset {SPACE}>{dated}{day}</urlset>".encode(), headers=XML)
    packed = gzip.compress(_urls(f"{asking.url}/three", f"{asking.url}/two", "https://elsewhere.example/"))
    asking.pages["/b.xml.gz"] = site_page(packed, headers={"content-type": "application/gzip"})
    asking.pages["/c.txt"] = site_page(
        f"{asking.url}/four\r\nnonsense\n".encode(), headers={"content-type": "text/plain"}
    )
    entries = _all(f"{asking.url}/deep/page")
    assert _paths(asking, entries) == ["/one?a=1&b=2", "/two", "/three", "/four"]
    assert entries[0].lastmod == datetime(2026, 11, 28, 8, tzinfo=UTC)
    assert entries[1].lastmod == datetime(2026, 11, 27, tzinfo=UTC) and entries[2].lastmod is None


def test_without_a_word_of_it_at_the_usual_place(asking: FakeSite) -> None:
    asking.pages["/sitemap.xml"] = site_page(_urls(f"{asking.url}/one"), headers=XML)
    assert _paths(asking, _all(f"{asking.url}/x")) == ["/one"]
    del asking.pages["/sitemap.xml"]
    assert _all(f"{asking.url}/x") == []


def test_bounds_of_depth_files_and_pages(asking: FakeSite) -> None:
    asking.pages["/sitemap.xml"] = site_page(_index("/1.xml"), headers=XML)
    for depth in range(1, 6):
        asking.pages[f"/{depth}.xml"] = site_page(_index(f"/{depth + 1}.xml", "/sitemap.xml"), headers=XML)
    report = SitemapReport()
    assert _all(f"{asking.url}/", report=report) == [] and report.unread == 1
    assert [path for path, _ in asking.visits if path != "/robots.txt"] == ["/sitemap.xml", "/1.xml", "/2.xml"]
    asking.requests.clear()
    asking.pages["/sitemap.xml"] = site_page(_index(*(f"/f{number}.xml" for number in range(40))), headers=XML)
    for number in range(40):
        asking.pages[f"/f{number}.xml"] = site_page(_urls(f"{asking.url}/{number}"), headers=XML)
    assert len(_all(f"{asking.url}/")) == 40 and len(asking.visits) == 41
    report = SitemapReport()
    assert len(_all(f"{asking.url}/", most=5, report=report)) == 5
    assert (report.files, report.unread, report.broken) == (6, 35, [])


def test_files_beyond_the_limit_are_counted(asking: FakeSite) -> None:
    names = [f"/f{number}.xml" for number in range(MAX_FILES + 9)]
    asking.pages["/sitemap.xml"] = site_page(_index(*names), headers=XML)
    asking.pages |= {name: site_page(b"<urlset/>", headers=XML) for name in names}
    report = SitemapReport()
    assert _all(f"{asking.url}/", report=report) == []
    assert (report.files, report.unread) == (MAX_FILES, 10)


@pytest.mark.parametrize(
    "body",
    [
        "<rss version='2.0'><channel><link>{site}/</link><item><title>x</title><link>{site}/one</link>"
        "<pubDate>Sat, 28 Nov 2026 08:00:00 GMT</pubDate></item><item><guid>{site}/two</guid></item>"
        "<item><guid isPermaLink='false'>{site}/no</guid></item></channel></rss>",
        "<feed xmlns='http://www.w3.org/2005/Atom'><link href='{site}/'/><entry><link rel='edit' href='/no'/>"
        "<link href='/one'/><updated>2026-11-28T08:00:00Z</updated></entry><entry><link rel='alternate' href='two'/>"
        "</entry></feed>",
        "<rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#' xmlns='http://purl.org/rss/1.0/' "
        "xmlns:dc='http://purl.org/dc/elements/1.1/'><item rdf:about='x'><link>{site}/one</link>"
        "<dc:date>2026-11-28T08:00:00Z</dc:date></item><item><link>{site}/two</link></item></rdf:RDF>",
        "\n \t<?xml version='1.0'?><urlset><url><loc>{site}/one</loc><lastmod>2026-11-28T08:00:00Z</lastmod></url>"
        "<url><loc><![CDATA[{site}/two]]></loc></url></urlset>",
        "<urlset><urlset><url><loc>{site}/one</loc><lastmod>2026-11-28T08:00:00Z</lastmod></url></urlset>"
        "<group><url><loc>\n{site}/two\n</loc></url></group></urlset>",
        "<sm:urlset xmlns:sm='x'><sm:url><sm:loc>{site}/one</sm:loc><sm:lastmod>2026-11-28T08:00:00Z</sm:lastmod>"
        "<image><loc>{site}/no</loc></image></sm:url><URL><LOC>{site}/two</LOC></URL></sm:urlset>",
        "<s:urlset><s:url><s:loc>{site}/one</s:loc><s:lastmod>2026-11-28T08:00:00Z</s:lastmod></s:url>"
        "<url><loc>{site}/two</loc></url></s:urlset>",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_files_of_all_forms(asking: FakeSite, body: str, encoding: str) -> None:
    """RSS, RDF and Atom, blanks at the beginning, entries at any depth, prefixes declared or not."""
    asking.pages["/sitemap.xml"] = site_page(body.replace("{site}", asking.url).encode(encoding), headers=XML)
    pages = _all(f"{asking.url}/")
    assert _paths(asking, pages) == ["/one", "/two"]
    assert [entry.lastmod for entry in pages] == [datetime(2026, 11, 28, 8, tzinfo=UTC), None]


def test_ampersands_that_are_not_escaped(asking: FakeSite) -> None:
    asking.pages["/sitemap.xml"] = site_page(
        _urls(f"{asking.url}/?a=1&b=2", f"{asking.url}/?a=1&amp;b=3", f"{asking.url}/?x=1&copy=2&#38;d=4"), headers=XML
    )
    assert _paths(asking, _all(f"{asking.url}/")) == ["/?a=1&b=2", "/?a=1&b=3", "/?x=1&copy=2&d=4"]


@pytest.mark.parametrize("packing", [bytes, gzip.compress, lambda body: gzip.compress(gzip.compress(body))])
@pytest.mark.parametrize("tail", ["", "<url><loc>{site}/thr", "<url><loc>{site}/three</loc>", "<url", "<!-- "])
def test_a_cut_file_has_its_whole_entries(asking: FakeSite, tail: str, packing: Callable[[bytes], bytes]) -> None:
    """Half an address is no page; the report names the file."""
    whole = _urls(f"{asking.url}/one", f"{asking.url}/two").removesuffix(b"</urlset>")
    body = packing(whole + tail.replace("{site}", asking.url).encode())
    asking.pages["/sitemap.xml"] = site_page(body, headers={"content-type": "application/octet-stream"})
    report = SitemapReport()
    assert _paths(asking, _all(f"{asking.url}/", report=report)) == ["/one", "/two"]
    assert report.broken == [f"{asking.url}/sitemap.xml"]


def test_a_compressed_file_that_ends_early(asking: FakeSite) -> None:
    names = [f"{asking.url}/{number}-{hashlib.sha256(b'%d' % number).hexdigest()}" for number in range(400)]
    packed = gzip.compress(_urls(*names))
    asking.pages["/sitemap.xml"] = site_page(packed[: len(packed) // 2], headers={"content-type": "application/gzip"})
    report = SitemapReport()
    pages = [entry.url for entry in _all(f"{asking.url}/", report=report)]
    assert 50 < len(pages) < 350 and pages == names[: len(pages)] and report.broken


def test_pages_with_and_without_www_are_of_one_site(asking: FakeSite) -> None:
    other = asking.url.replace("://", "://www.")
    asking.pages["/sitemap.xml"] = site_page(_urls(f"{other}/one", "https://elsewhere.example/"), headers=XML)
    assert [entry.url for entry in _all(f"{asking.url}/")] == [f"{other}/one"]


def test_a_page_in_place_of_a_sitemap_has_no_entries(asking: FakeSite) -> None:
    """And the one at the usual place may be missing: that is no fault."""
    report = SitemapReport()
    assert _all(f"{asking.url}/", report=report) == [] and report.broken == []
    html = b"<!doctype html><html><body><a href='/x'>x</a><item><link>/y</link></item></body>"
    asking.pages["/sitemap.xml"] = site_page(html)
    assert _all(f"{asking.url}/") == []


@pytest.mark.parametrize(
    "body",
    [
        b"<urlset><url><loc>http://x/</loc>",
        b'<!DOCTYPE u [<!ENTITY a "b"><!ENTITY c "&a;&a;">]><urlset><url><loc>http://x/&c;</loc></url></urlset>',
        gzip.compress(bytes(60 * 1024 * 1024)),
        b"\x1f\x8bbroken",
    ],
)
def test_broken_files_and_bombs(tmp_path: Path, body: bytes) -> None:
    blob = tmp_path / "sitemap"
    blob.write_bytes(body)
    with pytest.raises(InvalidInput):
        read_sitemap(blob, "http://x/sitemap.xml", MAX_PAGES, MAX_FILE_BYTES)


def test_a_broken_file_does_not_hide_the_next(asking: FakeSite) -> None:
    asking.pages["/sitemap.xml"] = site_page(_index("/broken.xml", "/good.xml"), headers=XML)
    asking.pages["/broken.xml"] = site_page(b"<urlset", headers=XML)
    asking.pages["/good.xml"] = site_page(_urls(f"{asking.url}/one"), headers=XML)
    assert _paths(asking, _all(f"{asking.url}/")) == ["/one"]


@pytest.mark.parametrize("way", ["length", "gzip"])
def test_a_transfer_that_breaks_off_is_tried_again(asking: FakeSite, way: str) -> None:
    """Then it is read as far as it came; the other files of the site are read as always."""
    names = [f"{asking.url}/{number}-{hashlib.sha256(b'%d' % number).hexdigest()}" for number in range(400)]
    body = gzip.compress(_urls(*names)) if way == "gzip" else _urls(*names)
    headers = {**XML, "content-encoding": "gzip"} if way == "gzip" else XML
    half = Response(body[: len(body) // 2], headers=headers)
    asking.pages["/robots.txt"] = site_page(b"Sitemap: /cut.xml\nSitemap: /good.xml\n", headers={})
    asking.pages["/cut.xml"] = half if way == "gzip" else Response(body, headers=headers, withheld_bytes=len(body) // 2)
    asking.pages["/good.xml"] = site_page(_urls(f"{asking.url}/good"), headers=XML)
    report = SitemapReport()
    pages = [entry.url for entry in _all(f"{asking.url}/", report=report)]
    assert 50 < len(pages) < 350 and pages == [*names[: len(pages) - 1], f"{asking.url}/good"]
    assert report.broken == [f"{asking.url}/cut.xml"]
    assert [path for path, _ in asking.visits].count("/cut.xml") == 3


def test_a_busy_server_is_asked_again_for_its_sitemap(asking: FakeSite) -> None:
    """After the last try the file is reported, and the site is crawled without it."""
    answers = [site_page(status=503), site_page(_urls(f"{asking.url}/one"), headers=XML)]
    respond = asking.respond

    def busy(request: Request) -> Response:
        if request.path != "/sitemap.xml":
            return respond(request)
        return answers.pop(0) if answers else site_page(status=503)

    asking.respond = busy  # type: ignore[method-assign]
    assert _paths(asking, _all(f"{asking.url}/")) == ["/one"]
    report = SitemapReport()
    assert _all(f"{asking.url}/", report=report) == [] and report.broken == [f"{asking.url}/sitemap.xml"]
