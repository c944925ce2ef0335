"""Operators in queries: exclusions, phrases, sites."""

from __future__ import annotations

import pytest

from app.search.query.operators import MAX_OPERATOR_WORDS, ParsedQuery, has_operators, parse


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        ("water mill", ParsedQuery("water mill")),
        ('the "water mill" stands', ParsedQuery("the water mill stands", phrases=("water mill",))),
        ("mill -wind", ParsedQuery("mill", without=("wind",))),
        ('mill -"wind mill" site:example.org', ParsedQuery("mill", without_phrases=("wind mill",), site="example.org")),
        ("lang:de-AT mühle", ParsedQuery("mühle", language="de-AT")),
        ("site:https://*.example.org/a mill", ParsedQuery("mill", site="example.org")),
        ("site:a.org site:b.org x", ParsedQuery("x", site="b.org")),
        # No operators: a hyphen in a word, a dash alone, a quote that never ends, empty ones, other colons.
        ("well-known - mill", ParsedQuery("well-known - mill")),
        ('a "b', ParsedQuery('a "b')),
        ('a "" b', ParsedQuery('a "" b')),
        ("site: lang: x", ParsedQuery("site: lang: x")),
        ("lang:english note:x http://a.org", ParsedQuery("lang:english note:x http://a.org")),
        ("3 -4", ParsedQuery("3", without=("4",))),
        ("", ParsedQuery("")),
    ],
)
def test_operators(query: str, asked: ParsedQuery) -> None:
    assert parse(query) == asked


@pytest.mark.parametrize(
    ("query", "by_default"),
    [
        ("word " * MAX_OPERATOR_WORDS, True),
        ("word " * (MAX_OPERATOR_WORDS + 1), False),
        ("x-ray-film " * 6 + "a b", True),
        ("x-ray-film " * 7, False),
        ("水車" * 18, True),
        ("水車" * 24, False),
        ("", True),
    ],
)
def test_long_queries_are_text_by_default(query: str, by_default: bool) -> None:
    assert has_operators(query, None) is by_default
    assert has_operators(query, True) is True
    assert has_operators(query, False) is False
