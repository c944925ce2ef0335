"""Many documents in one request, over HTTP."""

from __future__ import annotations

import json
from typing import Any

import httpx

from app.core.db import database
from app.documents.ingest.batch import index_batch
from app.documents.jobs import BatchDocuments
from tests.support.api_keys import holder
from tests.support.desk import Desk, on_a_loop
from tests.support.problems import assert_problem
from tests.unit.api.conftest import Api

PATH = "/api/documents:batch"
NDJSON = {"content-type": "application/x-ndjson"}


def _send(client: httpx.Client, *lines: Any, headers: dict[str, str] | None = None, **query: Any) -> httpx.Response:
    body = "\n".join(json.dumps(line) for line in lines)
    return client.post(PATH, content=body, headers=NDJSON | (headers or {}), params=query)


def _work(job_id: str) -> None:
    desk = Desk(database())
    progress = desk.claim(job_id)
    on_a_loop(index_batch(BatchDocuments.model_validate(progress.claim.payload), progress))


def test_batch_returns_the_outcome_of_each_line(api: Api) -> None:
    api.client.post("/api/collections", json={"name": "mills"})
    answer = _send(api.client, {"text": "The mill."}, {"text": ""}, {"text": "A heron."}, collection="mills")
    job = answer.json()
    assert answer.status_code == 202 and answer.headers["location"] == f"/api/jobs/{job['id']}"
    assert (job["kind"], job["lines"]) == ("documents.batch", 3)
    assert api.client.get(f"{PATH}/{job['id']}").text == ""
    _work(job["id"])
    shown = api.client.get(f"{PATH}/{job['id']}")
    assert shown.headers["content-type"] == "application/x-ndjson"
    ends = [json.loads(line) for line in shown.text.splitlines()]
    assert [end["status"] for end in ends] == ["indexed", "failed", "indexed"]
    document = api.client.get(f"/api/documents/{ends[0]['document_id']}").json()
    assert document["collection"] == "mills" and document["text"] == "The mill."


def test_the_same_request_again_is_the_same_job(api: Api) -> None:
    headers = {"Idempotency-Key": "once"}
    first = _send(api.client, {"text": "one"}, headers=headers)
    again = _send(api.client, {"text": "one"}, headers=headers)
    assert first.json()["id"] == again.json()["id"] and again.headers["idempotency-replayed"] == "true"
    assert_problem(_send(api.client, {"text": "two"}, headers=headers), 422, "idempotency_key_reused")


def test_invalid_batches_are_refused(lite_api: Api) -> None:
    client = lite_api.client
    assert_problem(client.post(PATH, json=[{"text": "x"}]), 415, "unsupported_type")
    assert_problem(client.post(PATH, content=b"\n \n", headers=NDJSON), 422, "empty_batch")
    assert_problem(client.get(f"{PATH}/0190a000-0000-7000-8000-000000000000"), 404, "job_not_found")
    other = client.post("/api/documents", json={"text": "x"}).json()["id"]
    assert_problem(client.get(f"{PATH}/{other}"), 404, "job_not_found")


def test_key_for_collections_writes_to_these_only(lite_api: Api) -> None:
    for name in ("one", "two"):
        lite_api.client.post("/api/collections", json={"name": name})
    with holder(lite_api, "collection:one") as client:
        assert_problem(_send(client, {"text": "x"}, collection="two"), 403, "scope_missing")
        job = _send(client, {"text": "mill one"}, {"text": "mill two", "collection": "two"})
        assert job.status_code == 202, job.text
        _work(job.json()["id"])
    ends = lite_api.client.get(f"{PATH}/{job.json()['id']}").text.splitlines()
    assert [json.loads(end)["status"] for end in ends] == ["indexed", "failed"]
