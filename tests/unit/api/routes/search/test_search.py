"""Search and its index over HTTP: facets, chunks, similar documents, state, proof and rebuilding."""

from __future__ import annotations

from typing import Any

import pytest

from app.core.db import database
from app.main import create_app
from app.search.jobs import VerifyIndex
from tests.fakes.embeddings import FakeEmbeddings
from tests.support.databases import SettingsEnv
from tests.support.desk import Desk, open_job
from tests.support.problems import assert_problem
from tests.support.waiting import wait_until
from tests.unit.api.conftest import Api, served


@pytest.fixture
def desk(lite_api: Api) -> Desk:
    """Three documents, one of them in a collection."""
    lite_api.client.post("/api/collections", json={"name": "mills"})
    desk = Desk(database())
    texts = ["the water mill and its wheel", "a wheel of the wind mill", "herons stand in the reed"]
    for number, text in enumerate(texts):
        body = {"external_id": str(number), "text": text, "source": f"s{number % 2}"}
        job = lite_api.client.post("/api/documents", json=body | ({"collection": "mills"} if number == 1 else {}))
        desk.work(job.json()["id"])
    return desk


def _search(api: Api, **body: Any) -> dict[str, Any]:
    answer = api.client.post("/api/search", json={"mode": "keyword", **body})
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()
    return result


def test_facets_and_chunks(lite_api: Api, desk: Desk) -> None:
    result = _search(lite_api, query="wheel", facets=["source", "collection", "source"], chunks="all")
    assert result["facets"] == {
        "source": [{"value": "s0", "count": 1}, {"value": "s1", "count": 1}],
        "collection": [{"value": "mills", "count": 1}],
    }
    assert all(len(hit["chunks"]) == 1 for hit in result["results"])
    assert result["as_of"] == 3
    assert _search(lite_api, query='"wind mill"')["total"] == 1
    assert _search(lite_api, query="whele")["corrected_query"] == "wheel"
    for body in ({"facets": ["nothing"]}, {"facets": ["source"] * 6}, {"chunks": "some"}):
        assert lite_api.client.post("/api/search", json={"query": "x", **body}).status_code == 422


def test_similar(lite_api: Api, desk: Desk) -> None:
    result = lite_api.client.get("/api/documents/1/similar?limit=1").json()["results"]
    assert [hit["document_id"] for hit in result] == ["2"]
    assert_problem(lite_api.client.get("/api/documents/99/similar"), 404, "document_not_found")
    assert lite_api.client.get("/api/documents/1/similar?limit=0").status_code == 422


def test_index_state_is_shown(lite_api: Api, desk: Desk) -> None:
    state = lite_api.client.get("/api/index/state").json()
    assert (state["engine"], state["dimension"]) == ("embedded", 256)
    assert state["behind"] == {"changes": 0, "seconds": 0.0}
    health = lite_api.client.get("/health").json()
    assert health["search"] == {"engine": "embedded", "behind": None}


def test_index_verification_and_rebuild(lite_api: Api, desk: Desk) -> None:
    """Both are jobs; while a proof is open a second one is the same."""
    first = lite_api.client.post("/api/index/verify")
    assert first.status_code == 202 and first.json()["kind"] == VerifyIndex.kind
    assert lite_api.client.post("/api/index/verify", json={"repair": False}).json()["id"] == first.json()["id"]
    assert desk.db.read(open_job, VerifyIndex.kind) == first.json()["id"]
    before = _search(lite_api, query="wheel")
    rebuilt = lite_api.client.post("/api/index/rebuild")
    assert rebuilt.status_code == 202 and rebuilt.json()["kind"] == "search.follow"
    after = _search(lite_api, query="wheel")
    assert after["results"] == before["results"] and after["as_of"] == before["as_of"] + 1
    assert lite_api.client.post("/api/index/verify", json={"mend": True}).status_code == 422


def test_generations_are_listed_and_changed_by_jobs(lite_api: Api, desk: Desk) -> None:
    shown = lite_api.client.get("/api/index/generations").json()["data"]
    assert shown == [{"name": "wordllama/l2_supercat/256", "dimension": 256, "state": "active", "changed_at": None}]
    for path, body, kind in [
        ("build", {}, "search.build_generation"),
        ("compare", {"first": "a", "second": "b", "queries": ["x"]}, "search.compare_generations"),
        ("swap", {"name": "tei/m/2"}, "search.swap_generation"),
        ("drop", {"name": "tei/m/2"}, "search.drop_generation"),
    ]:
        answer = lite_api.client.post(f"/api/index/generations/{path}", json=body)
        assert answer.status_code == 202 and answer.json()["kind"] == kind, answer.text
    back = lite_api.client.post("/api/index/generations/rollback").json()
    assert back["kind"] == "search.swap_generation"
    assert lite_api.client.get(f"/api/jobs/{back['id']}").json()["payload"] == {"name": None}
    assert lite_api.client.post("/api/index/generations/swap", json={}).status_code == 422


def test_health_names_the_server_of_embeddings(sqlite_url: str, redis_url: str, settings_env: SettingsEnv) -> None:
    """It is not needed to be ready: words are searched without it."""
    with FakeEmbeddings().running() as player:
        settings_env(
            database_url=sqlite_url, redis_url=redis_url, embedder="openai", embedder_url=player.url,
            embedder_model="m", embedder_dimension=2,
        )  # fmt: skip
        with served(create_app()) as api:
            wait_until(lambda: api.hub.has_redis, what="the hub to reach Redis")
            assert api.client.get("/health").json()["services"]["embedder"] == "healthy"
            batches_before = len(player.batches)
            api.client.get("/health")
            assert len(player.batches) == batches_before
            assert "embedder" not in api.client.get("/readyz").json()["services"]


def test_an_answer_says_how_the_query_was_read(lite_api: Api, desk: Desk) -> None:
    """Operators by choice of the caller or by length, phrases relaxed, no matching word, hits that are weak."""
    answer = _search(lite_api, query='"mill wind" wheel')
    assert (answer["operators"], answer["relaxed"], answer["words_matched"]) == (True, ["mill wind"], True)
    assert answer["total"] == 2
    answer = _search(lite_api, query='"mill wind" -wheel', operators=False)
    assert (answer["operators"], answer["relaxed"], answer["total"]) == (False, [], 2)
    long = "the passage of a letter " * 6 + '"as said" -wheel'
    assert _search(lite_api, query=long)["operators"] is False
    assert _search(lite_api, query=long)["total"] == 2
    assert _search(lite_api, query=long, operators=None)["operators"] is False
    answer = _search(lite_api, query=long, operators=True)
    assert (answer["operators"], answer["relaxed"], answer["total"]) == (True, ["as said"], 0)
    answer = _search(lite_api, query="quarterly accounting", mode="hybrid")
    assert answer["words_matched"] is False and {hit["weak"] for hit in answer["results"]} <= {True, False}
    assert all(0 <= hit["score"] <= 1 for hit in answer["results"])
    assert _search(lite_api, query="mill", mode="semantic")["words_matched"] is None
    assert lite_api.client.post("/api/search", json={"query": "x", "operators": "perhaps"}).status_code == 422


def test_the_state_counts_what_is_to_be_analysed_again(lite_api: Api, desk: Desk) -> None:
    assert lite_api.client.get("/api/index/state").json()["outdated"] == 0
