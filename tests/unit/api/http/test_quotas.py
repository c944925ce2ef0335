"""Quotas: exactly as much as a tenant may hold, however many ask at once, and no more."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from app.jobs.models import JobRow
from tests.support.api_keys import holder
from tests.support.problems import assert_problem
from tests.unit.api.conftest import Api

Make = Callable[..., JobRow]


def test_open_jobs_are_counted_exactly_under_concurrent_requests(api: Api, errand: Make) -> None:
    with holder(api, "read", "write", tenant="acme") as acme:
        api.client.patch("/api/tenants/acme", json={"max_open_jobs": 5})
        errand()  # another tenant's
        first = errand(tenant="acme")
        with ThreadPoolExecutor(12) as threads:
            answers = list(threads.map(lambda n: acme.post("/api/documents", json={"text": f"text {n}"}), range(12)))
        assert sorted(answer.status_code for answer in answers) == [202] * 4 + [429] * 8
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert_problem(refused, 429, "quota_open_jobs")
        assert refused.headers["retry-after"] == "5"
        assert acme.get("/api/me").json()["used"]["open_jobs"] == 5
        # A refused request leaves nothing behind, and what has ended makes room.
        assert acme.get("/api/me").json()["used"]["documents"] == 4
        acme.post(f"/api/jobs/{first.id}/cancel")
        assert acme.post("/api/documents", json={"text": "one more"}).status_code == 202
        assert_problem(acme.post(f"/api/jobs/{first.id}/retry"), 429, "quota_open_jobs")
        assert api.client.post("/api/documents", json={"text": "others are free"}).status_code == 202


def test_documents_and_bytes_must_be_deleted_first(api: Api) -> None:
    with holder(api, "read", "write", tenant="acme") as acme:
        api.client.patch("/api/tenants/acme", json={"max_documents": 2, "max_bytes": 100})
        ids = []
        for name in ("a", "b"):
            body = {"external_id": name, "text": name * 30}
            ids.append(acme.post("/api/documents", json=body).json()["document_id"])
        assert_problem(acme.post("/api/documents", json={"text": "c"}), 409, "quota_documents")
        # The same again is no new document; a large one is too many bytes.
        assert acme.post("/api/documents", json={"external_id": "a", "text": "a" * 31}).status_code == 202
        assert_problem(acme.post("/api/documents", json={"external_id": "a", "text": "é" * 31}), 409, "quota_bytes")
        used = acme.get("/api/me").json()["used"]
        assert used == {"open_jobs": 3, "documents": 2, "bytes": 91}
        assert acme.delete(f"/api/documents/{ids[0]}").status_code == 204
        assert acme.post("/api/documents", json={"text": "c"}).status_code == 202
        assert api.client.get("/api/tenants/acme").json()["used"]["documents"] == 2


def test_quota_below_current_use_refuses_additions_only(lite_api: Api) -> None:
    with holder(lite_api, "read", "write", tenant="acme") as acme:
        body = {"external_id": "a", "text": "some text"}
        assert acme.post("/api/documents", json=body).status_code == 202
        lite_api.client.patch("/api/tenants/acme", json={"max_documents": 0})
        assert acme.post("/api/documents", json=body | {"text": "other text"}).status_code == 202
        assert_problem(acme.post("/api/documents", json={"text": "new"}), 409, "quota_documents")
        lite_api.client.patch("/api/tenants/acme", json={"max_documents": None})
        assert acme.post("/api/documents", json={"text": "new"}).status_code == 202
