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
    ],
)
def test_canonical(url: str, same: str) -> None:
    """Host in lower case, no fragment, no tracking; the rest untouched, and once is enough."""
    assert canonical(url) == same
    assert canonical(same) == same


def test_domain_is_as_written() -> None:
    assert domain("https://User:Secret@Example.com:8080/x") == "Example.com:8080"
    assert domain("just words") is None


@pytest.mark.parametrize("url", ["", " \x00 ", "https://a.org/" + "ä" * 1100, "http://[::1"])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(InvalidInput):
        check_url(url)
