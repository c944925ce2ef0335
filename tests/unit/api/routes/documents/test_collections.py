"""Collections over HTTP: documents in them, searches, keys and bulk work by them."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from app.core.db import database
from app.documents import bulk
from app.documents.jobs import DeleteDocuments
from tests.support.api_keys import holder
from tests.support.desk import Desk
from tests.support.problems import assert_problem
from tests.support.searches import search_ids
from tests.unit.api.conftest import Api


@pytest.fixture
def desk(api: Api) -> Desk:
    return Desk(database())


def give(client: httpx.Client, desk: Desk, word: str, collection: str | None = None, **more: Any) -> str:
    """The id of an indexed document with this word in it."""
    body = {"markdown": f"# Notes\n\nThe {word} is here.", "external_id": word, **more}
    answer = client.post("/api/documents", json=body | ({"collection": collection} if collection else {}))
    assert answer.status_code == 202, answer.text
    desk.work(answer.json()["id"])
    return str(answer.json()["document_id"])


def run(desk: Desk, job: dict[str, Any]) -> dict[str, Any]:
    """Run the job that deletes many documents, as a worker would."""
    progress = desk.claim(job["id"])
    payload = DeleteDocuments.model_validate(progress.claim.payload)
    return asyncio.run(bulk.delete_documents(payload, progress))


def test_a_collection_is_made_listed_renamed_and_deleted(api: Api) -> None:
    made = api.client.post("/api/collections", json={"name": "case-7", "title": "Case 7"})
    assert made.status_code == 201
    assert (made.json()["name"], made.json()["documents"], made.json()["chunks"]) == ("case-7", 0, 0)
    assert_problem(api.client.post("/api/collections", json={"name": "case-7"}), 409, "collection_exists")
    for wrong in ("", "a b", "-x", "x" * 101, "ä"):
        assert api.client.post("/api/collections", json={"name": wrong}).status_code == 422
    api.client.post("/api/collections", json={"name": "atlas"})
    page = api.client.get("/api/collections", params={"limit": 1}).json()
    assert [row["name"] for row in page["data"]] == ["atlas"] and page["has_more"]
    rest = api.client.get("/api/collections", params={"cursor": page["next_cursor"]}).json()
    assert [row["name"] for row in rest["data"]] == ["case-7"]
    renamed = api.client.patch("/api/collections/case-7", json={"name": "case-8", "description": "A case"})
    assert (renamed.json()["name"], renamed.json()["title"]) == ("case-8", "Case 7")
    assert_problem(api.client.patch("/api/collections/atlas", json={"name": "case-8"}), 409, "collection_exists")
    assert_problem(api.client.get("/api/collections/case-7"), 404, "collection_not_found")
    assert api.client.delete("/api/collections/case-8").status_code == 204
    assert_problem(api.client.delete("/api/collections/case-8"), 404, "collection_not_found")


def test_documents_are_searched_and_counted_by_collection(api: Api, desk: Desk) -> None:
    """A document belongs to one collection; moved, it is found there at once."""
    for name in ("one", "two"):
        api.client.post("/api/collections", json={"name": name})
    first = give(api.client, desk, "anvil", "one")
    second = give(api.client, desk, "bellows", "two")
    loose = give(api.client, desk, "chisel")
    assert sorted(search_ids(api.client, "notes")) == sorted([first, second, loose])
    assert search_ids(api.client, "notes", collections=["one"]) == [first]
    assert sorted(search_ids(api.client, "notes", collections=["one", "two"])) == sorted([first, second])
    unknown = api.client.post("/api/search", json={"query": "x", "filters": {"collections": ["three"]}})
    assert_problem(unknown, 404, "collection_not_found")
    listed = api.client.get("/api/documents", params={"collection": "two"}).json()["data"]
    assert [(row["id"], row["collection"]) for row in listed] == [(second, "two")]
    assert api.client.get("/api/collections/one").json()["documents_indexed"] == 1
    moved = api.client.patch(f"/api/documents/{first}", json={"collection": "two"})
    assert moved.json()["collection"] == "two"
    assert search_ids(api.client, "notes", collections=["one"]) == []
    assert sorted(search_ids(api.client, "notes", collections=["two"])) == sorted([first, second])
    assert api.client.patch(f"/api/documents/{first}", json={"collection": None}).json()["collection"] is None
    assert search_ids(api.client, "anvil", collections=["two"]) == []
    # Given again with another collection it moves; without one it stays.
    give(api.client, desk, "anvil", "one", title="again")
    give(api.client, desk, "anvil", title="once more")
    assert search_ids(api.client, "anvil", collections=["one"]) == [first]
    refused = api.client.post("/api/documents", json={"markdown": "x", "collection": "three"})
    assert_problem(refused, 404, "collection_not_found")


def test_key_for_a_collection_reaches_this_collection_only(api: Api, desk: Desk) -> None:
    for name in ("site.a", "site.b", "other"):
        api.client.post("/api/collections", json={"name": name})
    theirs = give(api.client, desk, "granite", "other")
    loose = give(api.client, desk, "marble")
    with holder(api, "collection:site.a") as site_client, holder(api, "collection:site.*") as sites_client:
        mine = give(site_client, desk, "basalt")  # one collection: it need not be said
        assert api.client.get(f"/api/documents/{mine}").json()["collection"] == "site.a"
        also = give(sites_client, desk, "gneiss", "site.b")
        assert search_ids(site_client, "notes") == [mine]
        assert sorted(search_ids(sites_client, "notes")) == sorted([mine, also])
        assert_problem(
            site_client.post("/api/search", json={"query": "x", "filters": {"collections": ["other"]}}),
            404,
            "collection_not_found",
        )
        for hidden in (theirs, loose, also):
            assert_problem(site_client.get(f"/api/documents/{hidden}"), 404, "document_not_found")
            assert_problem(site_client.delete(f"/api/documents/{hidden}"), 404, "document_not_found")
            assert_problem(
                site_client.patch(f"/api/documents/{hidden}", json={"collection": "site.a"}), 404, "document_not_found"
            )
        assert [row["id"] for row in site_client.get("/api/documents").json()["data"]] == [mine]
        assert [row["name"] for row in sites_client.get("/api/collections").json()["data"]] == ["site.a", "site.b"]
        assert_problem(site_client.get("/api/collections/other"), 404, "collection_not_found")
        assert_problem(
            site_client.post("/api/documents", json={"markdown": "x", "collection": "other"}), 403, "scope_missing"
        )
        assert_problem(sites_client.post("/api/documents", json={"markdown": "x"}), 403, "scope_missing")
        assert_problem(site_client.patch(f"/api/documents/{mine}", json={"collection": "other"}), 403, "scope_missing")
        # No client takes a document away from where they may not look.
        for key in ("granite", "marble"):
            taken = site_client.post("/api/documents", json={"markdown": "mine now", "external_id": key})
            assert_problem(taken, 409, "other_collection")
        # Its own jobs it may follow, others not; what is the tenant's it may not do.
        job = site_client.post("/api/documents", json={"markdown": "more", "external_id": "basalt"}).json()
        assert site_client.get(f"/api/jobs/{job['id']}").status_code == 200
        foreign = api.client.post("/api/documents", json={"markdown": "x", "external_id": "granite"}).json()
        assert_problem(site_client.get(f"/api/jobs/{foreign['id']}"), 404, "job_not_found")
        for path in ("/api/jobs", "/api/stats", "/api/keys"):
            assert site_client.get(path).status_code == 403
        assert site_client.post("/api/collections", json={"name": "mine"}).status_code == 403
        assert site_client.delete("/api/collections/site.a").status_code == 403
        assert site_client.delete(f"/api/documents/{mine}").status_code == 204


@pytest.mark.parametrize("fate", ["keep", "delete"])
def test_collection_is_deleted_with_or_without_its_documents(api: Api, desk: Desk, fate: str) -> None:
    api.client.post("/api/collections", json={"name": "gone"})
    words = ["alder", "birch", "cedar"]
    ids = [give(api.client, desk, word, "gone") for word in words]
    assert_problem(api.client.delete("/api/collections/gone"), 409, "collection_not_empty")
    job = api.client.delete("/api/collections/gone", params={"documents": fate})
    assert job.status_code == 202 and job.headers["location"] == f"/api/jobs/{job.json()['id']}"
    assert run(desk, job.json()) == {"kept" if fate == "keep" else "deleted": 3}
    assert_problem(api.client.get("/api/collections/gone"), 404, "collection_not_found")
    left = search_ids(api.client, "notes")
    assert sorted(left) == (sorted(ids) if fate == "keep" else [])
    assert all(row["collection"] is None for row in api.client.get("/api/documents").json()["data"])


def test_documents_are_deleted_by_a_filter(api: Api, desk: Desk) -> None:
    """A dry run tells what would go; what came later, and what is out of reach, stays."""
    api.client.post("/api/collections", json={"name": "pile"})
    old = [give(api.client, desk, f"word{n}", "pile", tags=["old", f"n{n}"]) for n in range(3)]
    new = give(api.client, desk, "fresh", "pile", tags=["new"])
    loose = give(api.client, desk, "loose", tags=["old"])
    assert api.client.post("/api/documents:delete", json={"filter": {}}).status_code == 422
    body = {"filter": {"tags": ["old"], "collection": "pile"}}
    dry = api.client.post("/api/documents:delete", json=body | {"dry_run": True}).json()
    assert dry["matched"] == 3 and sorted(row["id"] for row in dry["sample"]) == sorted(old)
    preview = api.client.post("/api/documents:delete", json={"filter": {"tags": ["n1", "old"]}, "dry_run": True}).json()
    assert preview["matched"] == 1
    with holder(api, "collection:pile") as holding:
        job = holding.post("/api/documents:delete", json={"filter": {"tags": ["old"]}}).json()
    late = give(api.client, desk, "late", "pile", tags=["old"])
    assert run(desk, job) == {"deleted": 3}
    assert sorted(search_ids(api.client, "notes")) == sorted([new, loose, late])


def test_bulk_delete_continues_after_a_crash(api: Api, desk: Desk) -> None:
    """The second run counts the work of the first and does not repeat it."""
    for n in range(bulk.BATCH + 5):
        api.client.post("/api/documents", json={"markdown": f"page {n}", "tags": ["x"], "external_id": f"k{n}"})
    job = api.client.post("/api/documents:delete", json={"filter": {"tags": ["x"]}}).json()
    progress = desk.claim(job["id"])
    payload = DeleteDocuments.model_validate(progress.claim.payload)
    done, more = database().transaction(bulk._step, progress.claim, payload)
    assert (done, more) == (bulk.BATCH, True)
    assert asyncio.run(bulk.delete_documents(payload, progress)) == {"deleted": bulk.BATCH + 5}
    assert api.client.get("/api/documents").json()["data"] == []
