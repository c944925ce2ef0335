"""What a query may say beside its words."""

from __future__ import annotations

import pytest

from app.search.query.operators import Asked, parse


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        ("water mill", Asked("water mill")),
        ('the "water mill" stands', Asked("the water mill stands", phrases=("water mill",))),
        ("mill -wind", Asked("mill", without=("wind",))),
        ('mill -"wind mill" site:example.org', Asked("mill", without_phrases=("wind mill",), site="example.org")),
        ("lang:de-AT mühle", Asked("mühle", language="de-AT")),
        ("site:https://*.example.org/a mill", Asked("mill", site="example.org")),
        ("site:a.org site:b.org x", Asked("x", site="b.org")),
        # No operators: a hyphen in a word, a dash alone, a quote that never ends, empty ones, other colons.
        ("well-known - mill", Asked("well-known - mill")),
        ('a "b', Asked('a "b')),
        ('a "" b', Asked('a "" b')),
        ("site: lang: x", Asked("site: lang: x")),
        ("lang:english note:x http://a.org", Asked("lang:english note:x http://a.org")),
        ("3 -4", Asked("3", without=("4",))),
        ("", Asked("")),
    ],
)
def test_operators(query: str, asked: Asked) -> None:
    assert parse(query) == asked
