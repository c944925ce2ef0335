"""Queries beyond words: exact words, exclusions, sites, facets, all chunks, typos; on each engine."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from app.core.errors import InvalidInput
from app.documents.models import DocumentVersion
from app.search.engines.base import Filters
from app.search.query import operators, search
from tests.support.desk import Desk, on_a_loop


@pytest.fixture
def filled(desk: Desk) -> Desk:
    """Six documents about mills, in two languages and on three domains."""
    desk.put(
        "The water mill stands at the old bank.",
        url="https://docs.example.org/1",
        tags=("a", "b"),
        source="crawl",
        language="en",
    )
    desk.put(
        "A mill that needs water, and a wheel.", url="https://example.org/2", tags=("a",), source="crawl", language="en"
    )
    desk.put("Wind mills have no wheel in the water.", url="https://example.org:8443/3", source="api", language="en")
    desk.put("To be or not to be: the miller's question.", url="https://other.net/4", source="api", language="en")
    desk.put("Die Wassermühle steht am alten Ufer.", url="https://other.net/5", language="de-AT")
    desk.put("Élan vital of the café by the mill.", url="https://example.organic/6", source="file", language="en")
    return desk


def _numbers(desk: Desk, text: str, **question: Any) -> list[str]:
    answer = desk.find(text, **{"mode": "keyword", "limit": 50, **question})
    assert answer["total"] == len(answer["results"])
    return sorted(hit["url"].rsplit("/", 1)[1] for hit in answer["results"])


def test_exact_words(filled: Desk) -> None:
    """Side by side and in their order, whatever case, accents and stop words; in every mode."""
    assert _numbers(filled, '"water mill"') == ["1"]
    assert _numbers(filled, '"WATER, mill" bank') == ["1"]
    assert filled.find('"water mill"', mode="keyword")["relaxed"] == []
    assert _numbers(filled, '"elan vital" "CAFE by"') == ["6"]
    assert _numbers(filled, '"to be or not to be"', mode="hybrid") == ["4"]
    assert _numbers(filled, '"water mill"', mode="semantic") == ["1"]
    assert _numbers(filled, "mill") == ["1", "2", "3", "6"]


def test_a_phrase_that_no_document_has_is_relaxed(filled: Desk) -> None:
    """Its words are searched, and the answer says so; the other phrases stay required."""
    answer = filled.find('"mill water"', mode="keyword")
    assert answer["relaxed"] == ["mill water"] and answer["total"] == 4
    answer = filled.find('"water mill" "zebra crossing"', mode="keyword")
    assert answer["relaxed"] == ["zebra crossing"] and [hit["document_id"] for hit in answer["results"]] == ["1"]
    answer = filled.find('"water mill" "wind mills"', mode="keyword")  # both exist, in no document together
    assert answer["relaxed"] == ["water mill", "wind mills"] and answer["total"] == 4
    answer = filled.find('"water mill"', mode="keyword", filters=Filters(document_ids=(2, 3)))
    assert answer["relaxed"] == ["water mill"] and answer["total"] == 2
    assert filled.find('"mill water"', mode="semantic")["relaxed"] == ["mill water"]
    assert filled.find('mill -"mill water"', mode="keyword")["relaxed"] == []


PASTED = (
    'In the report the author says that the so-called "miracle drive" - built in 1911 -needs no wheel at all, and that '
    "its -lang:de variant, see site:nowhere.test, turns with water from the old bank of the river."
)


def test_a_pasted_passage_has_no_operators(filled: Desk) -> None:
    """Over twenty words quotes, dashes and colons are prose, unless the caller says otherwise; fewer are operators."""
    answer = filled.find(PASTED, mode="keyword", limit=50)
    assert answer["operators"] is False and answer["relaxed"] == []
    assert {"1", "2", "3"} <= {hit["document_id"] for hit in answer["results"]}
    answer = filled.find(PASTED, mode="keyword", operators=True)
    assert answer["operators"] is True and answer["total"] == 0
    assert filled.find('mill -wheel "water mill"', mode="keyword")["operators"] is True
    answer = filled.find('mill -wheel "mill water"', mode="keyword", operators=False, limit=50)
    assert answer["operators"] is False and answer["relaxed"] == []
    assert [hit["document_id"] for hit in answer["results"]].count("2") == 1
    assert filled.find("site:other.net", mode="keyword", operators=False)["total"] == 0


def test_words_to_leave_out(filled: Desk) -> None:
    """In any of their forms, by words and by meaning; a phrase only where it stands as such."""
    assert _numbers(filled, "mill -wheels") == ["1", "6"]
    assert _numbers(filled, 'mill -"water mill"') == ["2", "3", "6"]
    assert "2" not in _numbers(filled, "mill -wheel", mode="semantic")
    assert "2" not in _numbers(filled, "mill -wheel", mode="hybrid")
    assert _numbers(filled, "-wheel") == []


def test_sites_and_languages(filled: Desk) -> None:
    """A site is its domains with and without a port, not what merely begins or ends so."""
    assert _numbers(filled, "mill site:example.org") == ["1", "2", "3"]
    assert _numbers(filled, "mill site:docs.example.org") == ["1"]
    assert _numbers(filled, "mill site:EXAMPLE.org:8443") == ["3"]
    assert _numbers(filled, "mill site:ample.org") == []
    assert _numbers(filled, "wassermühle lang:de") == ["5"]
    assert _numbers(filled, "wassermühle lang:de-AT") == ["5"]
    assert _numbers(filled, "wassermühle lang:de-DE") == []


def test_facets_count_all_that_matches(filled: Desk) -> None:
    """Not only the page that is shown."""
    facets = filled.find("mill", mode="keyword", limit=1, facets=("source", "domain", "language", "tags", "collection"))
    assert facets["total"] == 4
    assert facets["facets"]["source"] == [
        {"value": "crawl", "count": 2},
        {"value": "api", "count": 1},
        {"value": "file", "count": 1},
    ]
    assert facets["facets"]["tags"] == [{"value": "a", "count": 2}, {"value": "b", "count": 1}]
    assert {bucket["value"] for bucket in facets["facets"]["domain"]} == {
        "docs.example.org", "example.org", "example.org:8443", "example.organic"
    }  # fmt: skip
    assert [bucket["count"] for bucket in facets["facets"]["language"]] == [4]
    assert facets["facets"]["collection"] == []
    assert sum(bucket["count"] for bucket in filled.find("mill", facets=("source",))["facets"]["source"]) >= 4
    assert filled.find("nothingness", mode="keyword", facets=("source",))["facets"] == {"source": []}


def test_typo_finds_the_intended_word(filled: Desk) -> None:
    """Only where no document has any of the words, and said in the answer."""
    for typed, meant in [
        ("wheell", "wheel"),
        ("whele", "wheel"),
        ("qestion", "question"),
        ("wassermuhke", "wassermuhle"),
    ]:
        answer = filled.find(typed, mode="keyword")
        assert answer["corrected_query"] == meant, typed
        assert answer["total"] > 0
        assert answer["query"] == typed
    assert filled.find("wheell", mode="hybrid")["corrected_query"] == "wheel"
    assert filled.find("mill wheell", mode="keyword")["corrected_query"] is None  # mill is found
    assert filled.find("zzzzzz", mode="keyword")["corrected_query"] is None
    assert filled.find("xyz", mode="keyword")["total"] == 0
    assert filled.find("wheell", mode="semantic")["corrected_query"] is None
    # It is there, only not on this site: nothing is corrected.
    assert filled.find("wheel site:other.net", mode="keyword")["corrected_query"] is None


def test_all_chunks_of_a_document(desk: Desk) -> None:
    """Every chunk with the words, best first; the places are those of the stored text."""
    filler = "\n\n".join("The mill grinds flour all day long. " * 25 for _ in range(4))
    text = f"# Birds\n\nA heron waits.\n\n{filler}\n\n## More\n\nThe heron and another heron fly.\n\n{filler}"
    desk.put(text, url="https://example.com/long")
    text = desk.db.read(lambda session: session.scalars(sa.select(DocumentVersion.text)).one()) or ""
    hit = desk.find("heron", mode="keyword", all_chunks=True)["results"][0]
    shown = [chunk["text"] for chunk in hit["chunks"]]
    assert len(shown) >= 2 and all("heron" in text.lower() for text in shown)
    assert hit["chunks"][0]["id"] == hit["chunk"]["id"]
    assert [chunk["score"] for chunk in hit["chunks"]] == sorted(
        (chunk["score"] for chunk in hit["chunks"]), reverse=True
    )
    for chunk in hit["chunks"]:
        start = chunk["snippet_start"]
        assert text[start : start + len(chunk["snippet"])] == chunk["snippet"]
        for begin, end in chunk["highlights"]:
            assert text[start + begin : start + end].lower().startswith("heron")
    assert text[hit["snippet_start"] :].startswith(hit["snippet"])
    assert "chunks" not in desk.find("heron", mode="keyword")["results"][0]


def test_answer_contains_the_change_it_has_read(desk: Desk) -> None:
    desk.put("one", external_id="1")
    before = desk.find("one")["as_of"]
    desk.put("two", external_id="2")
    assert desk.find("two")["as_of"] == before + 1


def test_similar_documents(filled: Desk) -> None:
    """By the meaning of all its chunks, without itself; what is not searched any more has none."""
    hits = on_a_loop(search.similar("default", 1, limit=3))
    assert len(hits) == 3 and hits[0]["url"].endswith(("/2", "/3"))
    assert all(hit["document_id"] != "1" for hit in hits)
    filled.delete("2")
    assert "2" not in {hit["document_id"] for hit in on_a_loop(search.similar("default", 1, limit=10))}
    assert on_a_loop(search.similar("default", 2, limit=3)) == []
    assert on_a_loop(search.similar("other", 1, limit=3)) == []


def test_deep_pages_end(filled: Desk) -> None:
    assert filled.find("mill", offset=100_000)["results"] == []
    assert operators.parse("x").text == "x"
    with pytest.raises(InvalidInput):
        filled.find("x" * 5000)
