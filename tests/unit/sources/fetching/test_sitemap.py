"""Pages of sitemaps: indexes, compressed files and plain lists, within limits."""

from __future__ import annotations

import asyncio
import gzip
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.core.errors import InvalidInput
from app.sources.fetching.sitemap import MAX_FILE_BYTES, MAX_PAGES, SitemapEntry, entries
from app.sources.fetching.sitemap_parser import read_sitemap
from tests.fakes.site import FakeSite
from tests.fakes.site import page as site_page
from tests.support.databases import SettingsEnv

XML = {"content-type": "application/xml"}
HEAD = '<?xml version="1.0" encoding="UTF-8"?>'
SPACE = 'xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"'


@pytest.fixture
def asking(settings_env: SettingsEnv, redis_url: str, site: FakeSite) -> FakeSite:
    settings_env(redis_url=redis_url, fetch_private="true", fetch_host_delay_s=0)
    return site


def _urls(*said: str) -> bytes:
    return f"{HEAD}<urlset {SPACE}>{''.join(f'<url><loc>{one}</loc></url>' for one in said)}</urlset>".encode()


def _index(*said: str) -> bytes:
    inner = "".join(f"<sitemap><loc>{one}</loc></sitemap>" for one in said)
    return f"{HEAD}<sitemapindex {SPACE}>{inner}</sitemapindex>".encode()


def _all(url: str, most: int = 1000) -> list[SitemapEntry]:
    async def run() -> list[SitemapEntry]:
        return [entry async for entry in entries(url, max_pages=most)]

    return asyncio.run(run())


def _paths(site: FakeSite, found: list[SitemapEntry]) -> list[str]:
    return [entry.url.removeprefix(site.url) for entry in found]


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
    found = _all(f"{asking.url}/deep/page")
    assert _paths(asking, found) == ["/one?a=1&b=2", "/two", "/three", "/four"]
    assert found[0].lastmod == datetime(2026, 11, 28, 8, tzinfo=UTC)
    assert found[1].lastmod == datetime(2026, 11, 27, tzinfo=UTC) and found[2].lastmod is None


def test_without_a_word_of_it_at_the_usual_place(asking: FakeSite) -> None:
    asking.pages["/sitemap.xml"] = site_page(_urls(f"{asking.url}/one"), headers=XML)
    assert _paths(asking, _all(f"{asking.url}/x")) == ["/one"]
    del asking.pages["/sitemap.xml"]
    assert _all(f"{asking.url}/x") == []


def test_bounds_of_depth_files_and_pages(asking: FakeSite) -> None:
    asking.pages["/sitemap.xml"] = site_page(_index("/1.xml"), headers=XML)
    for depth in range(1, 6):
        asking.pages[f"/{depth}.xml"] = site_page(_index(f"/{depth + 1}.xml", "/sitemap.xml"), headers=XML)
    assert _all(f"{asking.url}/") == []
    assert [path for path, _ in asking.visits if path != "/robots.txt"] == ["/sitemap.xml", "/1.xml", "/2.xml"]
    asking.requests.clear()
    asking.pages["/sitemap.xml"] = site_page(_index(*(f"/f{number}.xml" for number in range(40))), headers=XML)
    for number in range(40):
        asking.pages[f"/f{number}.xml"] = site_page(_urls(f"{asking.url}/{number}"), headers=XML)
    assert len(_all(f"{asking.url}/")) == 19 and len(asking.visits) == 20
    assert len(_all(f"{asking.url}/", most=5)) == 5


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
