"""A crawl judges pages by their address after redirects, and each page is one document, however it is reached."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

import actors.documents
import actors.sources  # noqa: F401  the functions that drain() runs
from app.core.db import database
from app.documents.models import Document
from app.jobs import testing as jobs
from app.sources.crawls import addresses
from app.sources.crawls.patterns import pattern_of
from tests.fakes.server import Request, Response
from tests.fakes.site import FakeSite, site
from tests.fakes.site import page as site_page
from tests.support.crawls import html, metrics, rows, start, words
from tests.support.databases import SettingsEnv
from tests.support.desk import Desk
from tests.unit.api.conftest import Api

__all__ = ["site"]


def result(api: Api, crawl: dict[str, Any]) -> dict[str, Any]:
    jobs.drain()
    job = api.client.get(f"/api/jobs/{crawl['id']}").json()
    assert job["state"] == "succeeded", job
    facts: dict[str, Any] = job["result"]
    return facts


def documents() -> set[str]:
    """Return the URLs of all documents with a text."""
    query = sa.select(Document.url).where(Document.version_id.is_not(None))
    return {str(url) for url in database().read(lambda session: session.scalars(query).all())}


def moved(target: str, status: int = 302) -> Response:
    return site_page(status=status, headers={"location": target})


def other_host(site: FakeSite) -> str:
    return site.url.replace("127.0.0.1", "localhost")


def by_host(site: FakeSite, host: str, answer: Callable[[Request], Response]) -> None:
    """Answer the requests to one host of the site in another way."""
    respond = site.respond

    def choose(request: Request) -> Response:
        return answer(request) if request.headers["host"].startswith(host) else respond(request)

    site.respond = choose  # type: ignore[method-assign]


def test_a_start_that_redirects_to_another_site_moves_the_crawl(lite: Api, site: FakeSite) -> None:
    """With its sitemap; links to the old site are followed as far as they lead to the new one; the crawl says so."""
    by_host(
        site,
        "127.0.0.1",
        lambda request: (
            html("stray") if request.target == "/stray" else moved(f"{other_host(site)}{request.target}", 301)
        ),
    )
    site.pages = {
        "/": html("start", "/a", f"{site.url}/b", f"{site.url}/stray"), "/a": html("heron"), "/b": html("mill"),
        "/c": html("egret"),
        "/sitemap.xml": site_page(f"<urlset><url><loc>{other_host(site)}/c</loc></url></urlset>".encode()),
    }  # fmt: skip
    crawl = start(lite, f"{site.url}/", sitemap="include")
    facts = result(lite, crawl)
    assert words() == {"start", "heron", "mill", "egret"}
    assert documents() == {f"{other_host(site)}{path}" for path in ("/", "/a", "/b", "/c")}
    assert facts["moved_to"] == f"{other_host(site)}/" and (facts["pages"], facts["failed"]) == (4, 0)
    assert metrics(lite, crawl)["extra_metadata"]["moved_to"] == f"{other_host(site)}/"


def test_a_start_that_redirects_within_its_site_moves_nothing(lite: Api, site: FakeSite) -> None:
    site.pages = {"/": moved("/home"), "/home": html("start", "/", "/home", "/a"), "/a": html("heron")}
    facts = result(lite, start(lite, f"{site.url}/", limit=2))
    assert words() == {"start", "heron"} and "moved_to" not in facts
    assert (facts["pages"], facts["skipped"]) == (2, 0), "a redirect takes no place in the limit"


@pytest.mark.parametrize(
    ("target", "rules"),
    [
        ("{other}/x", {}),
        ("/private/x", {"exclude": ["/private/*"]}),
        ("/%70rivate/x", {"exclude": ["/private/*"]}),
        ("/private/x", {"include": ["/a*"]}),
    ],
)
@pytest.mark.parametrize("way", ["302", "308", "header", "meta"])
def test_a_page_that_leads_out_of_the_crawl_is_skipped(
    lite: Api, site: FakeSite, target: str, rules: dict[str, Any], way: str
) -> None:
    target = target.replace("{other}", other_host(site))
    ways = {
        "302": moved(target), "308": moved(target, 308),
        "header": site_page(b"<p>Moving on.</p>", headers={"content-type": "text/html", "refresh": f"0; {target}"}),
        "meta": html("leaving", head=f'<meta http-equiv="refresh" content="3; url={target}">'),
    }  # fmt: skip
    out = html("outside")
    site.pages = {"/": html("start", "/a", "/also"), "/a": ways[way], "/also": html("heron"), "/private/x": out}
    site.pages["/%70rivate/x"] = out
    by_host(site, "localhost", lambda request: out if request.target == "/x" else site_page(status=404))
    crawl = start(lite, f"{site.url}/", **rules)
    result(lite, crawl)
    assert words() == {"start", "heron"}
    row = rows(crawl)["a"]
    assert (row.state, row.error_code) == ("skipped", "out_of_scope")


def test_pages_that_redirect_to_one_are_one(lite: Api, site: FakeSite) -> None:
    """Whether it was read before or after them; its links are followed from it."""
    site.pages = {
        "/": html("start", "/one", "/two", "/new", "/three"), "/one": moved("/new"), "/two": moved("/one"),
        "/three": html("three", head="<meta http-equiv=refresh content='0;url=/new'>"),
        "/new": html("heron", "/deep"), "/deep": html("egret"),
    }  # fmt: skip
    crawl = start(lite, f"{site.url}/")
    facts = result(lite, crawl)
    assert documents() == {f"{site.url}{path}" for path in ("/", "/new", "/deep")}
    assert (facts["pages"], facts["indexed"], facts["failed"], facts["skipped"]) == (3, 3, 0, 0)
    assert {path: row.state for path, row in rows(crawl).items() if row.state != "taken"} == {
        "one": "redirected", "two": "redirected", "three": "redirected"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("delay", "is_redirect"), [("0", True), ("5", True), ("10", True), ("30", False), ("300", False)]
)
def test_a_refresh_of_a_few_seconds_is_a_redirect(lite: Api, site: FakeSite, delay: str, is_redirect: bool) -> None:
    """A later one is not, nor one of the page to itself, nor one for browsers without scripts."""
    site.pages = {
        "/": html("start", "/meta", "/header", "/self", "/noscript"),
        "/meta": html("meta", head=f'<META HTTP-EQUIV="Refresh" CONTENT="{delay}; URL=\'/a\'">'),
        "/header": site_page(
            html("header").body, headers={"content-type": "text/html", "refresh": f"{delay};url=/b"}
        ),
        "/self": html("self", head=f'<meta http-equiv="refresh" content="{delay}">'),
        "/noscript": html("noscript", head=f'<noscript><meta http-equiv="refresh" content="{delay};/a"></noscript>'),
        "/a": html("heron"), "/b": html("mill"),
    }  # fmt: skip
    result(lite, start(lite, f"{site.url}/"))
    assert words() == {"start", "self", "noscript"} | ({"heron", "mill"} if is_redirect else {"meta", "header"})


def test_pages_that_refresh_to_each_other_are_pages(lite: Api, site: FakeSite) -> None:
    site.pages = {
        "/": html("one", head='<meta http-equiv="refresh" content="5; url=/two">'),
        "/two": html("two", head='<meta http-equiv="refresh" content="5; url=/">'),
    }
    facts = result(lite, start(lite, f"{site.url}/"))
    assert facts["failed"] == 0 and len(words()) == 1


def test_one_page_has_one_document_however_it_is_written(lite: Api, site: FakeSite) -> None:
    spellings = (
        "/b", "/%62", "/./b", "/x/../b", "/b?utm_source=x", "/b?utm_anything=x&fbclid=1", "/b#top", "/b?", "",
        f"{site.url.upper().replace('HTTP', 'http')}/b", "/b?PHPSESSID=0123456789abcdef0123",
        "/b;jsessionid=0123456789abcdef",
    )  # fmt: skip
    site.pages = {"/": html("start", *spellings, "/%e4?a=%c3%a4", "/%E4?a=%C3%A4"), "/b": html("heron")}
    site.pages |= {"/%E4?a=%C3%A4": html("mill"), "/%e4?a=%c3%a4": html("mill")}
    facts = result(lite, start(lite, f"{site.url}"))
    assert words() == {"start", "heron", "mill"}
    assert (facts["pages"], facts["failed"], facts["skipped"]) == (3, 0, 0)
    assert len([path for path, _ in site.visits if path != "/robots.txt"]) == 3


@pytest.mark.parametrize(
    ("spelling", "other"),
    [
        ("https://example.org", "https://example.org/"),
        ("https://example.org/a", "https://www.example.org/a"),
        ("http://example.org/a", "https://example.org:443/a"),
        ("http://example.org:80/a", "https://EXAMPLE.org./a"),
        ("https://bücher.example/ä b", "https://xn--bcher-kva.example/%C3%A4%20b"),
        ("https://example.org/%7euser/%2f", "https://example.org/~user/%2F"),
        ("https://example.org/a?b=%7E&utm_x=1", "https://example.org/a?b=~"),
    ],
)
def test_spellings_of_one_page_have_one_key(spelling: str, other: str) -> None:
    assert addresses.key_of(spelling) == addresses.key_of(other) is not None


@pytest.mark.parametrize(
    ("spelling", "other"),
    [
        ("https://example.org/a", "https://example.org/A"),
        ("https://example.org/a", "https://example.org/a/"),
        ("https://example.org/a?b=1", "https://example.org/a?b=2"),
        ("https://example.org/a?sid=17", "https://example.org/a?sid=18"),
        ("https://example.org/a", "https://example.org:8443/a"),
        ("https://example.org/a", "https://docs.example.org/a"),
        ("https://example.org/a%2Fb", "https://example.org/a/b"),
    ],
)
def test_other_pages_have_other_keys(spelling: str, other: str) -> None:
    assert addresses.key_of(spelling) != addresses.key_of(other)


def test_a_page_is_under_the_address_that_it_names(lite: Api, site: FakeSite) -> None:
    """In its head or its Link header; the named page is read itself, and the links of the others are followed."""
    to_a = '<link rel="canonical" href="/a">'
    by_header = {"content-type": "text/html", "link": '</b>; rel="canonical"'}
    site.pages = {
        "/": html("start", "/a?sort=up", "/print/a", "/b?x=1"),
        "/a": html("heron", head=to_a), "/a?sort=up": html("heron sorted", "/deep", head=to_a),
        "/print/a": html("heron printed", head=to_a), "/deep": html("egret"),
        "/b": html("mill"), "/b?x=1": site_page(html("mill once more").body, headers=by_header),
    }  # fmt: skip
    facts = result(lite, start(lite, f"{site.url}/"))
    assert documents() == {f"{site.url}{path}" for path in ("/", "/a", "/b", "/deep")}
    assert words() == {"start", "heron", "egret", "mill"} and facts["pages"] == 4


def test_an_address_that_cannot_be_read_is_not_obeyed(lite: Api, site: FakeSite) -> None:
    """Of another site, excluded, missing, or in a circle: no page is lost for it."""

    def named(word: str, target: str) -> Response:
        return html(word, head=f'<link rel="canonical" href="{target}">')

    site.pages = {
        "/": named("start", "https://elsewhere.example/"),
        "/missing-there": named("missing", "/gone"), "/round": named("round", "/circle"),
        "/circle": named("circle", "/round"), "/excluded": named("excluded", "/private/x"), "/private/x": html("x"),
    }  # fmt: skip
    site.pages["/"] = html(
        "start", "/missing-there", "/round", "/circle", "/excluded",
        head='<link rel="canonical" href="https://elsewhere.example/">',
    )  # fmt: skip
    result(lite, start(lite, f"{site.url}/", exclude=["/private/*"]))
    assert {"start", "missing", "excluded"} <= words() and words() & {"round", "circle"} and "x" not in words()


def test_a_last_slash_or_index_makes_no_second_page(lite: Api, site: FakeSite) -> None:
    """If the text is the same; other texts are other pages."""
    site.pages = {
        "/": html("start", "/a", "/a/", "/a/index.html", "/b", "/b/"), "/a": html("heron"), "/a/": html("heron"),
        "/a/index.html": html("heron"), "/b": html("mill"), "/b/": html("mills"),
    }  # fmt: skip
    facts = result(lite, start(lite, f"{site.url}/"))
    assert documents() == {f"{site.url}{path}" for path in ("/", "/a", "/b", "/b/")} and facts["pages"] == 4


def test_a_crawl_finds_the_document_of_another_spelling(lite: Api, site: FakeSite) -> None:
    """And the document of an earlier crawl moves with a page that redirects by now."""
    site.pages = {"/": html("start", "/old"), "/old": html("heron")}
    result(lite, start(lite, f"{site.url}/"))
    first = {hit["document_id"] for hit in Desk(database()).find("heron", mode="keyword")["results"]}
    site.pages = {"/": html("start", "/old"), "/old": moved("/new"), "/new": html("heron")}
    result(lite, start(lite, f"{site.url}"))
    assert documents() == {f"{site.url}/", f"{site.url}/new"}
    assert {hit["document_id"] for hit in Desk(database()).find("heron", mode="keyword")["results"]} == first


def test_endless_pages_are_bounded_and_reported(lite: Api, site: FakeSite, settings_env: SettingsEnv) -> None:
    """A calendar and parameters that grow; the site's other pages are all read."""
    settings_env(crawl_pattern_pages=12)
    endless = site.respond

    def respond(request: Request) -> Response:
        if request.path == "/calendar":
            month = int(request.query.partition("=")[2])
            return html(f"month{month}", *(f"/calendar?month={month + step}" for step in range(1, 20)), "/a")
        if request.path.startswith("/days/"):
            return html(f"day{request.path}", *(f"/days/2026/{month:02}/" for month in range(1, 13)), "/days/2027/01")
        return endless(request)

    site.respond = respond  # type: ignore[method-assign]
    site.pages = {"/": html("start", "/calendar?month=1", "/days/2025/01/", *(f"/{number}" for number in range(20)))}
    site.pages |= {"/a": html("heron")} | {f"/{number}": html(f"page{number}") for number in range(20)}
    crawl = start(lite, f"{site.url}/", limit=500, max_depth=20)
    facts = result(lite, crawl)
    host = site.url.partition("//")[2].partition(":")[0]
    assert sorted(facts["bounded"]) == [f"{host}/calendar?month", f"{host}/days/#/#/"]
    assert {"start", "heron", *(f"page{number}" for number in range(20))} <= words()
    targets = [path for path, _ in site.visits]
    assert sum(path.startswith("/calendar") for path in targets) == 12
    assert sum(path.startswith("/days") for path in targets) == 13, "2026 and two more"
    assert metrics(lite, crawl)["extra_metadata"]["bounded"] == facts["bounded"]


def test_session_ids_make_no_pages(lite: Api, site: FakeSite) -> None:
    """Each answer has a new one in its links, and even redirects add them."""
    visits = 0
    site.pages = {}

    def respond(request: Request) -> Response:
        nonlocal visits
        visits += 1
        token = f"{visits:032x}"
        if request.path == "/c" and "sid" not in request.query:
            return moved(f"/c?sid={token}")
        known = {"/": "start", "/a": "heron", "/b": "mill", "/c": "egret"}
        if request.path not in known:
            return site_page(status=404)
        return html(known[request.path], *(f"{path}?sid={token}" for path in known), f"/a;jsessionid={token}")

    site.respond = respond  # type: ignore[method-assign]
    facts = result(lite, start(lite, f"{site.url}/", max_depth=10))
    assert documents() == {f"{site.url}{path}" for path in ("/", "/a", "/b", "/c")}
    assert (facts["pages"], facts["failed"]) == (4, 0) and visits < 12


@pytest.mark.parametrize(
    ("url", "pattern"),
    [
        ("https://www.example.org/cal?year=2026&month=3", "example.org/cal?month&year"),
        ("https://example.org/2026/11", "example.org/#/#"),
        ("https://example.org/x/x/x/y", "example.org/…/x/y/…"),
        ("https://example.org/articles/1234", None),
        ("https://example.org/2026/11/the-heron", None),
        ("https://example.org/a?utm_source=x", None),
    ],
)
def test_patterns(url: str, pattern: str | None) -> None:
    assert pattern_of(url) == pattern


def test_cookies_of_one_chain_go_back(lite: Api, site: FakeSite) -> None:
    """A page that is shown only with the cookie of its redirect; the next page's request has none."""

    def respond(request: Request) -> Response:
        if request.path not in ("/", "/a"):
            return site_page(status=404)
        if request.headers.get("cookie") != "seen=yes":
            headers = {"location": request.target, "set-cookie": "seen=yes; Path=/"}
            return site_page(status=302, headers=headers)
        return html("start", "/a") if request.path == "/" else html("heron")

    site.respond = respond  # type: ignore[method-assign]
    result(lite, start(lite, f"{site.url}/"))
    assert words() == {"start", "heron"}
    cookies = [request.headers.get("cookie") for request in site.requests if request.path in ("/", "/a")]
    assert cookies == [None, "seen=yes", None, "seen=yes"]
