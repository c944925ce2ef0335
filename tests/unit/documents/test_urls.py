"""Which addresses are one page."""

from __future__ import annotations

import pytest

from app.core.errors import InvalidInput
from app.documents.urls import canonical, check_url, domain


@pytest.mark.parametrize(
    ("url", "same"),
    [
        ("https://Example.COM/Path?b=2&a=1#top", "https://example.com/Path?b=2&a=1"),
        ("https://a.org/?utm_source=x&UTM_Medium=y&id=1&fbclid=z&hsCtaTracking=q", "https://a.org/?id=1"),
        ("https://a.org/?utm_source=x", "https://a.org/"),
        ("https://a.org/?q=a%20b&flag", "https://a.org/?q=a%20b&flag"),
        ("HTTP://User:Pw@A.org:8080/x", "http://User:Pw@a.org:8080/x"),
        ("no url at all", "no url at all"),
        ("https://a.org", "https://a.org/"),
        ("https://a.org?", "https://a.org/"),
        ("https://a.org:443/x", "https://a.org/x"),
        ("http://a.org:443/x", "http://a.org:443/x"),
        ("http://[::1]:80", "http://[::1]/"),
        ("https://a.org./x", "https://a.org/x"),
        ("https://Bücher.example/", "https://xn--bcher-kva.example/"),
        ("https://straße.de/", "https://xn--strae-oqa.de/"),
        ("https://a.org/ä b/%7eme/%2f%e4", "https://a.org/%C3%A4%20b/~me/%2F%E4"),
        ("https://a.org/100%/%zz?q=50%", "https://a.org/100%/%zz?q=50%"),
        ("https://a.org/a/./b/../c/..", "https://a.org/a/"),
        ("https://a.org/?utm_new=1&yclid=2&a=1&&b=", "https://a.org/?a=1&b="),
        ("https://a.org/x;jsessionid=0A1B?PHPSESSID=0123456789abcdef0", "https://a.org/x"),
        ("https://a.org/talk?session_id=42&sid=7", "https://a.org/talk?session_id=42&sid=7"),
        ("https://a.org:x/%7e", "https://a.org:x/%7e"),
        ("mailto:A@b.org?subject=%7e", "mailto:A@b.org?subject=%7e"),
        ("https://a.org/" + "ü" * 900, "https://a.org/" + "ü" * 900),
    ],
)
def test_canonical(url: str, same: str) -> None:
    """Host in lower case and ASCII, no default port, no fragment, no tracking; once is enough.

    A URL that would become too long for an index keeps its letters.
    """
    assert canonical(url) == same
    assert canonical(same) == same


def test_domain_is_as_written() -> None:
    assert domain("https://User:Secret@Example.com:8080/x") == "Example.com:8080"
    assert domain("just words") is None


@pytest.mark.parametrize("url", ["", " \x00 ", "https://a.org/" + "ä" * 1100, "http://[::1"])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(InvalidInput):
        check_url(url)
