"""Words as people type them: with signs, in other scripts and normal forms; and their places in the text."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.search.text.analyzer import query_terms
from app.search.text.normalize import normalize
from app.search.text.snippets import snippet
from app.search.text.words import words
from tests.support.desk import Desk

TYPED = {
    "cpp": "Templates of C++ are compiled.",
    "c": "The language C is old.",
    "csharp": "Generics of C# are checked.",
    "net": "Services on .NET start fast.",
    "fish": "A net for herrings.",
    "version": "Fixed in v1.2.3 of the driver.",
    "part": "Order AB-1234/X from the shelf.",
    "camel": "Call getUserName or XMLHttpRequest first.",
    "mail": "Write to jane.doe@mail.example.com today.",
    "file": "See docs/final_report-2024.tar.gz for more.",
    "dont": "I don't wait.",
    "hyphen": "An e-mail arrives.",
    "path": "Edit .gitignore and C:\\work\\Makefile now.",
    "acronym": "Made in the U.S.A. by AT&T.",
    "contraction": "It's late, she'll say, and we can't go.",
    "shell": "A shell on the beach.",
    "name": "O\u2019Brien met D'Angelo.",
}


@pytest.fixture
def typed(desk: Desk) -> Desk:
    for name, text in TYPED.items():
        desk.put(text, external_id=name, language="en", title=name.upper() + "_")
    return desk


def test_what_is_typed_is_found_as_typed_and_by_its_parts(typed: Desk) -> None:
    """First of all hits, and absent where it must be."""
    for query, first, absent in [
        ("C++", "cpp", "c csharp"), ("c++", "cpp", "c"), ("C#", "csharp", "c cpp"), ("C", "c", "cpp csharp"),
        (".NET", "net", "fish"), ("net", None, ""), ("v1.2.3", "version", ""), ("1.2.3", "version", ""),
        ("AB-1234/X", "part", ""), ("AB-1234", "part", ""), ("ab1234", "part", ""), ("1234", "part", ""),
        ("AB 1234 X", "part", ""),
        ("getUserName", "camel", ""), ("getusername", "camel", ""), ("user name", "camel", ""),
        ("xmlhttprequest", "camel", ""),
        ("request", "camel", ""), ("jane.doe@mail.example.com", "mail", ""), ("mail.example.com", "mail", ""),
        ("jane.doe", "mail", ""), ("doe", "mail", ""), ("final_report-2024.tar.gz", "file", ""), ("report", "file", ""),
        ("2024", "file", ""), ("don't", "dont", ""), ("don\u2019t", "dont", ""), ("dont", "dont", ""),
        ("email", "hyphen", "mail"),
        ("e-mail", "hyphen", ""), ("e\u2011mail", "hyphen", ""), (".gitignore", "path", ""), ("gitignore", "path", ""),
        ("Makefile", "path", ""), ("USA", "acronym", ""), ("U.S.A.", "acronym", ""), ("AT&T", "acronym", ""),
        ("it's", "contraction", ""), ("she'll", "contraction", "shell"), ("shell", "shell", "contraction"),
        ("can't", "contraction", ""), ("cant", "contraction", ""), ("O'Brien", "name", ""), ("obrien", "name", ""),
        ("brien", "name", ""), ("angelo", "name", ""),
    ]:  # fmt: skip
        answer = typed.find(query, mode="keyword", limit=20)
        names = [hit["title"].lower().rstrip("_") for hit in answer["results"]]
        assert not answer["corrected_query"] and names, query
        assert first is None or names[0] == first, (query, names)
        assert not set(absent.split()) & set(names), (query, names)


def test_a_word_with_signs_is_left_out_as_typed(typed: Desk) -> None:
    names = {hit["title"].lower() for hit in typed.find("templates language -C++", mode="keyword")["results"]}
    assert names == {"c_"}
    assert typed.find("order shelf -AB-1234/X", mode="keyword")["total"] == 0
    assert typed.find("order shelf -AB-9/X", mode="keyword")["total"] == 1


def test_a_phrase_with_signs(typed: Desk) -> None:
    assert [hit["title"] for hit in typed.find('"of C++"', mode="keyword")["results"]] == ["CPP_"]
    assert [hit["title"] for hit in typed.find('"language C"', mode="keyword")["results"]] == ["C_"]


@pytest.mark.parametrize(
    ("text", "query", "language", "shown"),
    [
        ("Die Auf\u00adlage ist groß.", "Auflage", "de", "Auf\u00adlage"),
        ("Ein cafe\u0301 am Markt", "café", "fr", "cafe\u0301"),
        ("ｶﾞｽとﾃﾞｰﾀ", "データ", "ja", "ﾃﾞｰﾀ"),
        ("\u1112\u1161\u11ab\u1100\u116e\u11a8 사람", "한국", "ko", "\u1112\u1161\u11ab\u1100\u116e\u11a8"),
        ("ﬁnal oﬃce", "office", "en", "oﬃce"),
        ("سنة ٢٠٢٤ كانت", "2024", "ar", "٢٠٢٤"),
        ("un hors-d\u2019œuvre froid", "oeuvre", "fr", "œuvre"),
        ("call getUserName now", "user", "en", "User"),
        ("x 5㎏ y ①", "5kg", "en", "5㎏"),
        ("ข้างแม่น้ำเก่า", "แม่น้ำ", "th", "แม่น้ำ"),
    ],
)
def test_highlights_are_exact_though_normalising_changes_lengths(
    desk: Desk, text: str, query: str, language: str, shown: str
) -> None:
    desk.put(f"{text}.", external_id="1", language=language, format="text")
    [hit] = desk.find(query, mode="keyword")["results"]
    assert unicodedata.normalize("NFC", shown) in [hit["snippet"][start:end] for start, end in hit["highlights"]]


@given(st.text(st.characters(categories=None), max_size=120))
def test_normalising_is_nfkc_with_places(text: str) -> None:
    """Each character comes from where it says: places rise and cover no more than the text."""
    result = normalize(text)
    spans = [result.span(at, at + 1) for at in range(len(result.text))]
    assert all(0 <= start < end <= len(text) for start, end in spans)
    assert [start for start, _ in spans] == sorted(start for start, _ in spans)
    for word in words(text):
        assert 0 <= word.start < word.end <= len(text)


@pytest.mark.parametrize("plain", ["Élan café", "ガスのデータ", "한국 사람", "fine office", "ก็น้ำ", "नमस्ते", "Ångström"])
def test_every_normal_form_has_the_same_words(plain: str) -> None:
    expected = [word.folded for word in words(plain)]
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        assert [word.folded for word in words(unicodedata.normalize(form, plain))] == expected
    invisible = "\u00ad\u200b\u2060\ufeff\u200d"
    broken = invisible[0].join(plain.replace(" ", f"{invisible} {invisible}"))
    assert [word.folded for word in words(broken)] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("東京C++入門", "東京 c++ 入門"), ("C++で書く", "c++ で書 書く"), ("abc水車1", "abc 水車 1"),
        ("水・車", "水 車"),
        ("jane+tag@x.org", "jane+tag@x.org x.org jane tag x org"), ("C:\\a.txt", "c:\\a.txt a.txt c a txt"),
        ("COVID-19", "covid19 covid 19"), ("TCP/IP", "tcp/ip tcp ip"), ("10.0.0.1", "10.0.0.1 10 0 0 1"),
        ("GmbH", "gmbh"),
        ("C#.NET", "c#.net c# net"), ("rock'n'roll", "rocknroll rock n roll"), ("l'été", "l ete"), ("mill's", "mill s"),
        ("end. Start", "end start"), ("...and", "and"), ("a - b", "a b"), ("(.5)", "5"), ("x86_64", "x86_64 x86 86 64"),
    ],
)  # fmt: skip
def test_words_of_a_token(text: str, expected: str) -> None:
    assert " ".join(word.folded for word in words(text)) == expected


def test_signs_after_a_word_are_no_part_of_it() -> None:
    for text in (
        "Millrace™ grinds",
        "Millrace® grinds",
        "(Millrace) grinds.",
        "Millrace… grinds!",
        "'Millrace' grinds",
    ):
        assert [word.folded for word in words(text)] == ["millrace", "grinds"], text


def test_a_snippet_marks_the_whole_compound() -> None:
    shown = snippet("Order AB-1234/X now", query_terms("AB-1234/X", ["en"]), "en")
    assert [shown.text[start:end] for start, end in shown.highlights] == ["AB-1234/X"]
