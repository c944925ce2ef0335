"""The embedded engine follows what SQL says, and answers pages, filters and cursors without gaps."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from app.core import clock
from app.core.errors import InvalidInput
from app.documents import catalog
from app.search.engines.base import EngineRequest, Filters, Model
from app.search.engines.memory.engine import EmbeddedEngine, TenantFollower
from app.search.engines.source import counter
from app.search.index.write import prune_changes, touch_document
from app.search.models import IndexChange
from app.search.query.question import MAX_QUERY_CHARACTERS, Question
from app.search.query.search import WORD_VECTOR_WEIGHT
from tests.support.desk import TENANT, Desk, encode

WORDS = ["mill", "wheel", "water", "sluice", "gate", "heron", "reed", "stone", "flour", "axle", "bank", "stream"]
MODEL = Model("wordllama/l2_supercat/256", 256)


def _text(seed: int) -> str:
    rng = np.random.default_rng(seed)
    return " ".join(rng.choice(WORDS, 30)) + f" unique{seed}"


def _fill(desk: Desk, count: int, **about: Any) -> None:
    for seed in range(count):
        desk.put(_text(seed), url=f"https://example.com/{seed}", **about)


def _ask(text: str, **options: Any) -> EngineRequest:
    return EngineRequest(TENANT, text, encode([text])[0], MODEL, **options)


def _hits(session: Session, engine: EmbeddedEngine, ask: EngineRequest) -> list[tuple[int, float]]:
    return [(hit.document_id, round(hit.score, 5)) for hit in engine.search_now(session, ask).hits]


def test_followed_index_equals_a_rebuilt_one(desk: Desk) -> None:
    """After puts, replacements and deletes an old index answers as a new one does."""
    old = EmbeddedEngine()
    desk.db.read(old.search_now, _ask("mill"))
    _fill(desk, 12)
    desk.db.read(old.search_now, _ask("mill"))
    desk.put("heron heron reed", url="https://example.com/3")
    desk.db.transaction(catalog.delete, TENANT, "5")
    desk.put("another stone", url="https://example.com/new")
    for mode in ("hybrid", "semantic", "keyword"):
        for text in ("heron in the reed", "stone", "unique7 water"):
            ask = _ask(text, mode=mode, limit=50)
            followed = desk.db.read(_hits, old, ask)
            assert followed == desk.db.read(_hits, EmbeddedEngine(), ask)
            assert 5 not in dict(followed)


def test_index_older_than_the_pruning_is_rebuilt(desk: Desk) -> None:
    """It detects that the changes it has missed are pruned."""
    follower = TenantFollower(TENANT, MODEL)
    desk.put("the heron", url="https://example.com/1")
    desk.db.read(follower.follow)
    desk.put("the sluice", url="https://example.com/1")
    assert desk.db.transaction(prune_changes, clock.now() + timedelta(days=1)) == 2
    desk.db.read(follower.follow)
    assert follower.at == 2
    result = follower.index.search(_ask("sluice", mode="keyword"))
    assert result.total == 1
    assert follower.index.search(_ask("heron", mode="keyword")).total == 0
    assert desk.db.transaction(prune_changes, clock.now() - timedelta(days=7)) == 0


def test_changes_are_numbered_without_gaps(desk: Desk) -> None:
    """Writers at once: each takes its number as its last statement, so no follower passes one that commits later."""
    results = [desk.put(_text(n), external_id=str(n)) for n in range(3)]

    def touch(result: dict[str, Any]) -> int:
        return desk.db.transaction(touch_document, tenant=TENANT, document_id=int(result["document_id"]))

    before, _ = desk.db.read(counter)
    with ThreadPoolExecutor(4) as pool:
        taken = list(pool.map(touch, results * 8))
    assert sorted(taken) == list(range(before + 1, before + 25))


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pauses=st.lists(st.lists(st.integers(0, 15), min_size=3, max_size=8), min_size=2, max_size=3))
def test_overlapping_writers_never_hide_a_change(desk: Desk, pauses: list[list[int]]) -> None:
    """Each holds its transaction open for some milliseconds after it took its number; a follower that reads all the
    while has met every number in the end, and none twice."""

    def write(mine: list[int]) -> None:
        for pause_ms in mine:
            desk.db.transaction(_slow_touch, pause_ms / 1000)

    before, _ = desk.db.read(counter)
    seen: list[int] = []
    with ThreadPoolExecutor(len(pauses)) as pool:
        writing = [pool.submit(write, mine) for mine in pauses]
        while not all(future.done() for future in writing):
            seen += desk.db.read(_numbers_after, max([before, *seen]))
        for future in writing:
            future.result()
    seen += desk.db.read(_numbers_after, max([before, *seen]))
    assert seen == list(range(before + 1, before + 1 + sum(map(len, pauses))))


def _slow_touch(session: Session, pause_s: float) -> None:
    touch_document(session, tenant=TENANT, document_id=1)
    time.sleep(pause_s)


def _numbers_after(session: Session, at: int) -> list[int]:
    return list(session.scalars(sa.select(IndexChange.seq).where(IndexChange.seq > at).order_by(IndexChange.seq)))


@pytest.mark.parametrize(
    "how", [{"mode": "hybrid"}, {"fusion": "rrf"}, {"mode": "semantic"}, {"mode": "keyword"}], ids=str
)
def test_pages_have_no_gaps_or_duplicates(desk: Desk, how: dict[str, Any]) -> None:
    """By offset and by cursor the pages are the one long list, and the total is its length."""
    _fill(desk, 25)
    whole = desk.find("water mill", limit=100, **how)
    ids = [hit["document_id"] for hit in whole["results"]]
    assert len(ids) == len(set(ids)) == whole["total"]
    assert not whole["has_more"] and whole["next_cursor"] is None
    by_offset = [
        hit["document_id"]
        for offset in range(0, len(ids), 7)
        for hit in desk.find("water mill", limit=7, offset=offset, **how)["results"]
    ]
    assert by_offset == ids
    by_cursor, cursor = [], None
    while True:
        page = desk.find("water mill", limit=7, cursor=cursor, **how)
        by_cursor += [hit["document_id"] for hit in page["results"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert by_cursor == ids
    assert desk.find("water mill", offset=10_000, **how)["results"] == []


def test_cursor_is_stable_while_documents_are_added_and_deleted(desk: Desk) -> None:
    """No document is shown twice, and none that stays is skipped."""
    _fill(desk, 20)
    first = desk.find("water", mode="keyword", limit=5)
    shown = [hit["document_id"] for hit in first["results"]]
    rest = [hit["document_id"] for hit in desk.find("water", mode="keyword", limit=100)["results"]][5:]
    desk.put("water water water", url="https://example.com/top")
    desk.db.transaction(catalog.delete, TENANT, shown[0])
    second = desk.find("water", mode="keyword", limit=100, cursor=first["next_cursor"])
    second_ids = [hit["document_id"] for hit in second["results"]]
    assert not set(second_ids) & set(shown)
    assert set(rest) <= set(second_ids)


def test_filters(desk: Desk) -> None:
    """Each narrows alone and together; totals are those of what is left."""
    now = clock.now()
    desk.put("water one", url="https://A.org/1", language="en", country="GB", tags=("x", "y"), source="crawl")
    desk.put("water two", url="https://a.org:8080/2", language="de", country="AT", is_mobile=True)
    desk.put("water three", external_id="3", tags=("x",))

    def matching_words(**filters: Any) -> list[str]:
        answer = desk.find("water", filters=Filters(**filters), mode="keyword")
        assert answer["total"] == len(answer["results"])
        return sorted(hit["text"].split()[1] for hit in answer["results"])

    assert matching_words() == ["one", "three", "two"]
    assert matching_words(domain="A.org") == ["one"]
    assert matching_words(domain="a.org:8080", is_mobile=True) == ["two"]
    assert matching_words(language="de") == ["two"]
    assert matching_words(country="GB") == ["one"]
    assert matching_words(is_mobile=False) == ["one", "three"]
    assert matching_words(source="crawl") == ["one"]
    assert matching_words(tags=("x",)) == ["one", "three"]
    assert matching_words(tags=("x", "y")) == ["one"]
    assert matching_words(tags=("z",)) == []
    assert matching_words(since=now - timedelta(hours=1)) == ["one", "three", "two"]
    assert matching_words(until=now - timedelta(hours=1)) == []
    assert matching_words(since=datetime.max.replace(tzinfo=UTC)) == []
    assert matching_words(document_ids=(2, 3, 99)) == ["three", "two"]
    assert desk.find("water", filters=Filters(tags=("x",)), mode="hybrid")["total"] == 2


def test_the_best_chunk_of_a_long_document_is_shown(desk: Desk) -> None:
    """One result a document: the chunk that has the words, not the first one."""
    filler = "\n\n".join("The mill grinds flour all day long. " * 25 for _ in range(6))
    desk.put(f"# Mills\n\n{filler}\n\n## Herons\n\nA heron waits.\n\n{filler}", url="https://example.com/long")
    for mode in ("keyword", "hybrid", "semantic"):
        answer = desk.find("heron waits", mode=mode)
        assert answer["total"] == 1
        assert "heron waits" in answer["results"][0]["text"]
    assert answer["results"][0]["chunk"]["headings"] == ["Mills", "Herons"]


def test_scores_say_how_they_were_made(desk: Desk) -> None:
    """The fused score is the mean of the share of the best and the cosine, or the sum of both ranks' shares."""
    _fill(desk, 6)
    hit = desk.find("unique4 water")["results"][0]
    assert hit["scores"]["keyword_rank"] == 1
    weight = WORD_VECTOR_WEIGHT
    assert hit["score"] == pytest.approx((1 + weight * hit["scores"]["semantic"]) / (1 + weight), abs=1e-6)
    hit = desk.find("unique4 water", fusion="rrf")["results"][0]
    ranks = [hit["scores"]["keyword_rank"], hit["scores"]["semantic_rank"]]
    assert hit["score"] == pytest.approx(sum(1 / (60 + rank) for rank in ranks))
    only = desk.find("unique4", mode="keyword")["results"]
    assert len(only) == 1 and only[0]["scores"]["semantic"] is None
    assert only[0]["score"] == only[0]["scores"]["keyword"]


def test_a_keyword_score_is_above_zero(desk: Desk) -> None:
    """Even in an index of one document, and of a word that every document has."""
    desk.put("the mill wheel", external_id="1")
    assert desk.find("mill", mode="keyword")["results"][0]["score"] > 0
    desk.put("the mill pond", external_id="2")
    desk.put("the mill race", external_id="3")
    scores = [hit["score"] for hit in desk.find("mill", mode="keyword")["results"]]
    assert len(scores) == 3 and min(scores) > 0
    rare = desk.find("mill pond", mode="keyword")["results"]
    assert rare[0]["text"] == "the mill pond" and rare[0]["score"] > 2 * rare[1]["score"] > 0


def test_a_query_without_a_matching_word_says_so(desk: Desk) -> None:
    """Its hits are by meaning alone, with low scores, and weak if they are far from the query."""
    for number, text in enumerate(
        ["the water mill grinds flour", "a heron stands in the reed", "stones of the old weir"]
    ):
        desk.put(text, external_id=str(number))
    answer = desk.find("quarterly tax accounting software")
    assert answer["words_matched"] is False and answer["results"]
    assert all(0 <= hit["score"] < 0.3 and hit["scores"]["keyword"] is None for hit in answer["results"])
    assert all(hit["weak"] is (hit["scores"]["semantic"] < 0.35) for hit in answer["results"])
    assert answer["results"][-1]["weak"]
    answer = desk.find("heron reed")
    assert answer["words_matched"] is True
    best = answer["results"][0]
    assert best["scores"]["keyword"] > 0 and 0.6 < best["score"] <= 1 and not best["weak"]
    assert desk.find("quarterly tax", mode="keyword")["words_matched"] is False
    assert desk.find("heron", mode="semantic")["words_matched"] is None
    assert desk.find("herron", mode="hybrid")["words_matched"] is True  # as corrected
    assert desk.find("heron", filters=Filters(document_ids=(1,)))["words_matched"] is False


def test_stems_and_accents_of_the_documents_language(desk: Desk) -> None:
    """A query need not say its language: it is stemmed as the index's documents are."""
    desk.put("Die Mühlräder drehen sich langsam", language="de", external_id="de")
    desk.put("The wheels are turning slowly", language="en", external_id="en")
    desk.put("水車が回る", language="ja", external_id="ja")
    assert [hit["metadata"]["language"] for hit in desk.find("muhlrad", mode="keyword")["results"]] == ["de"]
    assert [hit["metadata"]["language"] for hit in desk.find("turned wheel", mode="keyword")["results"]] == ["en"]
    assert [hit["metadata"]["language"] for hit in desk.find("水車", mode="keyword")["results"]] == ["ja"]


@pytest.mark.parametrize("text", ["", "   ", "the of and", "\ud800", "🛞", "?!", "a" * 4096])
def test_query_without_words_never_fails(desk: Desk, text: str) -> None:
    assert desk.find(text)["total"] == 0
    desk.put("the mill of the bank", external_id="1")
    assert desk.find(text)["total"] in (0, 1)
    assert desk.find(text, mode="keyword")["total"] == 0


@pytest.mark.parametrize(
    "question",
    [
        Question("x" * (MAX_QUERY_CHARACTERS + 1)),
        Question("x", limit=0),
        Question("x", limit=101),
        Question("x", offset=-1),
        Question("x", cursor="?"),
        Question("x", cursor="e30"),
        Question("x", cursor="WzEsMiwzLDRd"),
    ],
)
def test_invalid_questions_are_refused(desk: Desk, question: Question) -> None:
    with pytest.raises(InvalidInput):
        desk.find(question.query, limit=question.limit, offset=question.offset, cursor=question.cursor)


def test_a_cursor_of_another_query_is_refused(desk: Desk) -> None:
    _fill(desk, 3)
    cursor = desk.find("water", limit=1)["next_cursor"]
    with pytest.raises(InvalidInput, match="different query"):
        desk.find("wheel", limit=1, cursor=cursor)


def test_searches_and_writes_at_once(desk: Desk) -> None:
    """Threads that ask while documents come: every answer is whole, and the last sees all."""
    desk.put(_text(0), external_id="0")

    def ask(n: int) -> int:
        return len(desk.find("water mill", limit=50)["results"])

    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(ask, n) for n in range(20)]
        for n in range(1, 8):
            desk.put(_text(n), external_id=str(n))
        counts = [answer.result() for answer in asked]
    assert all(1 <= count <= 8 for count in counts)
    assert ask(0) == 8
