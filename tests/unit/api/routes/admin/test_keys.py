"""Keys, tenants and the audit log over HTTP; scopes; what a revoked key leaves behind."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from app.core import clock
from app.jobs.models import JobRow
from app.main import create_app
from tests.support.api_keys import holder
from tests.support.databases import SettingsEnv
from tests.support.problems import assert_problem
from tests.support.waiting import wait_until
from tests.unit.api.conftest import Api, served

Make = Callable[..., JobRow]


def test_a_key_is_shown_once_used_listed_and_revoked(api: Api) -> None:
    made = api.client.post("/api/keys", json={"name": "shop", "scopes": ["write", "read"]}).json()
    token = made.pop("key")
    assert made["scopes"] == ["read", "write"]
    assert made["created_by"] == "secret"
    headers = {"Authorization": f"Bearer {token}"}
    assert api.anyone.get("/api/jobs", headers=headers).status_code == 200
    assert api.anyone.get("/api/jobs", headers={"Authorization": token}).status_code == 200
    me = api.anyone.get("/api/me", headers=headers).json()
    assert (me["tenant"], me["key_id"], me["scopes"]) == ("default", made["id"], ["read", "write"])
    listed = api.client.get("/api/keys")
    assert token[-20:] not in listed.text and "hash" not in listed.text
    assert [key["id"] for key in listed.json()["data"]] == [made["id"]]
    assert api.client.delete(f"/api/keys/{made['id']}").json()["state"] == "revoked"
    assert_problem(api.anyone.get("/api/jobs", headers=headers), 401, "unauthenticated")
    # The audit log tells it all, the newest first, and no secret.
    log = api.client.get("/api/audit-log")
    assert [entry["action"] for entry in log.json()["data"]] == ["key.revoke", "key.create"]
    assert {entry["subject"] for entry in log.json()["data"]} == {made["id"]}
    assert token[-20:] not in log.text


def test_a_repeated_request_makes_no_second_key_and_shows_no_secret(lite_api: Api) -> None:
    """Nothing keeps the secret, so a client that lost the answer rotates the key."""
    body, headers = {"name": "shop", "scopes": ["read"]}, {"Idempotency-Key": "k1"}
    first, again = (lite_api.client.post("/api/keys", json=body, headers=headers) for _ in range(2))
    assert (first.status_code, again.status_code, again.headers["idempotency-replayed"]) == (201, 201, "true")
    assert again.json() == first.json() | {"key": None}
    assert len(lite_api.client.get("/api/keys").json()["data"]) == 1
    made = [lite_api.client.post("/api/tenants", json={"id": "acme"}, headers=headers | {"Idempotency-Key": "k2"})]
    made.append(lite_api.client.post("/api/tenants", json={"id": "acme"}, headers={"Idempotency-Key": "k2"}))
    assert [answer.status_code for answer in made] == [201, 201]


def test_rotation_returns_a_new_secret(api: Api) -> None:
    made = api.client.post("/api/keys", json={"name": "shop", "scopes": ["read"]}).json()
    path = f"/api/keys/{made['id']}/rotate"
    new_token = api.client.post(path, json={"overlap_s": 3600}).json()["key"]
    for token in (made["key"], new_token):
        assert api.anyone.get("/api/jobs", headers={"Authorization": token}).status_code == 200
    assert api.client.post(path).json()["key"] != new_token
    assert_problem(api.client.post(path, json={"overlap_s": 10**9}), 422, "invalid_input")


def test_administrator_manages_one_tenant_only(lite_api: Api) -> None:
    with holder(lite_api, "admin", tenant="acme") as acme, holder(lite_api, "read") as ours:
        made = acme.post("/api/keys", json={"name": "a", "scopes": ["kind:shop.*"]}).json()
        assert made["tenant"] == "acme"
        for name in ("a", "test"):
            assert name in {key["name"] for key in acme.get("/api/keys").json()["data"]}
        other = ours.headers["X-Key"]
        assert_problem(acme.get(f"/api/keys/{other}"), 404, "key_not_found")
        assert_problem(acme.delete(f"/api/keys/{other}"), 404, "key_not_found")
        assert_problem(acme.post(f"/api/keys/{other}/rotate"), 404, "key_not_found")
        assert_problem(acme.get("/api/keys?tenant=default"), 404, "tenant_not_found")
        assert_problem(acme.get("/api/audit-log?tenant=*"), 404, "tenant_not_found")
        body = {"name": "x", "scopes": ["read"], "tenant": "default"}
        assert_problem(acme.post("/api/keys", json=body), 404, "tenant_not_found")
        assert_problem(acme.post("/api/keys", json={"name": "x", "scopes": ["operator"]}), 403, "scope_missing")
        assert_problem(acme.get("/api/tenants"), 403, "scope_missing")
        assert_problem(ours.get("/api/keys"), 403, "scope_missing")
        everyone = lite_api.client.get("/api/keys?tenant=*").json()["data"]
        assert {key["tenant"] for key in everyone} == {"acme", "default"}
        assert {entry["tenant"] for entry in acme.get("/api/audit-log").json()["data"]} == {"acme"}


def test_administrator_cannot_rotate_a_key_of_an_operator(lite_api: Api) -> None:
    with holder(lite_api, "operator") as operator, holder(lite_api, "admin") as admin:
        path = f"/api/keys/{operator.headers['X-Key']}/rotate"
        assert_problem(admin.post(path), 403, "scope_missing")
        assert operator.post(path).status_code == 200


def test_tenants_are_made_changed_and_disabled(api: Api) -> None:
    made = api.client.post("/api/tenants", json={"id": "acme", "title": "Acme", "max_documents": 5})
    assert (made.status_code, made.json()["quotas"]["max_documents"]) == (201, 5)
    assert_problem(api.client.post("/api/tenants", json={"id": "acme"}), 409, "tenant_exists")
    assert_problem(api.client.post("/api/tenants", json={"id": "No!"}), 422, "tenant_id")
    changed = api.client.patch("/api/tenants/acme", json={"max_open_jobs": 3, "max_documents": None}).json()
    assert changed["quotas"] == {"max_open_jobs": 3, "max_documents": None, "max_bytes": None}
    assert changed["title"] == "Acme"
    assert [tenant["id"] for tenant in api.client.get("/api/tenants").json()["data"]] == ["acme", "default"]
    page = api.client.get("/api/tenants?limit=1").json()
    rest = api.client.get("/api/tenants", params={"limit": 1, "cursor": page["next_cursor"]}).json()
    assert [tenant["id"] for tenant in page["data"] + rest["data"]] == ["acme", "default"]
    with holder(api, "read", tenant="acme") as acme:
        assert acme.get("/api/jobs").status_code == 200
        assert api.client.patch("/api/tenants/acme", json={"disabled": True}).json()["disabled_at"]
        assert_problem(acme.get("/api/jobs"), 401, "unauthenticated")
        assert api.client.patch("/api/tenants/acme", json={"disabled": False}).json()["disabled_at"] is None
        assert acme.get("/api/jobs").status_code == 200
    assert_problem(api.client.patch("/api/tenants/default", json={"disabled": True}), 409, "tenant_default")
    assert_problem(api.client.patch("/api/tenants/nobody", json={}), 404, "tenant_not_found")


def test_key_for_kinds_reads_jobs_of_these_kinds_only(lite_api: Api, errand: Make) -> None:
    job = errand("x")
    with holder(lite_api, "kind:tests.unit.api.*") as ours, holder(lite_api, "kind:shop.receipt") as theirs:
        assert [row["id"] for row in ours.get("/api/jobs").json()["data"]] == [job.id]
        assert theirs.get("/api/jobs").json()["data"] == []
        assert ours.get(f"/api/jobs/{job.id}").json()["payload"] == {"note": "x"}
        for path in (f"/api/jobs/{job.id}", f"/api/jobs/{job.id}/events", f"/api/tasks/{job.id}"):
            assert_problem(theirs.get(path), 404, "job_not_found")
        assert_problem(theirs.post(f"/api/jobs/{job.id}/cancel"), 404, "job_not_found")
        assert ours.post(f"/api/jobs/{job.id}/cancel").json()["state"] == "cancelled"
        for client in (ours, theirs):
            assert_problem(client.get("/api/documents"), 403, "scope_missing")
            assert_problem(client.post("/api/search", json={"query": "x"}), 403, "scope_missing")
            assert_problem(client.get("/api/keys"), 403, "scope_missing")


def test_read_and_write_are_separate_scopes(lite_api: Api, errand: Make) -> None:
    job = errand()
    with holder(lite_api, "read") as reader, holder(lite_api, "write") as writer:
        assert reader.post("/api/search", json={"query": "x"}).status_code == 200
        assert_problem(writer.post("/api/search", json={"query": "x"}), 403, "scope_missing")
        assert_problem(writer.get(f"/api/jobs/{job.id}"), 403, "scope_missing")
        assert_problem(reader.post(f"/api/jobs/{job.id}/cancel"), 403, "scope_missing")
        assert_problem(reader.post("/api/documents", json={"text": "x"}), 403, "scope_missing")
        assert writer.post("/api/documents", json={"text": "x"}).status_code == 202


def _revoke(api: Api, key_id: str) -> None:
    api.client.delete(f"/api/keys/{key_id}")


def _disable(api: Api, key_id: str) -> None:
    api.client.patch("/api/tenants/acme", json={"disabled": True})


@pytest.mark.parametrize("close", [_revoke, _disable])
def test_a_stream_ends_when_its_key_does(api: Api, errand: Make, close: Callable[[Api, str], None]) -> None:
    """Cleanly, so that a browser comes back, is told 401, and stays away; others go on."""
    job, ours = errand(tenant="acme"), errand()
    path = f"/api/jobs/{job.id}/events"
    with holder(api, "read", tenant="acme") as acme:
        with api.client.stream("GET", f"/api/jobs/{ours.id}/events") as other, acme.stream("GET", path) as stream:
            lines, others = stream.iter_lines(), other.iter_lines()
            assert "retry:" in next(lines) and "retry:" in next(others)
            wait_until(lambda: api.hub.subscriber_count == 2, what="both streams to be open")
            close(api, acme.headers["X-Key"])
            assert "event: end" not in list(lines)
            wait_until(lambda: api.hub.subscriber_count == 1, what="only the other stream to be left")
        assert_problem(acme.get(path), 401, "unauthenticated")


def test_revocation_reaches_every_process(api: Api, errand: Make) -> None:
    """Another api closes what the key opened there, without waiting for its own next look."""
    path = f"/api/jobs/{errand().id}/events"
    with served(create_app()) as other:
        wait_until(lambda: other.hub.has_redis, what="the other api to reach Redis")
        notices: list[str] = []
        hear = other.hub.on_notice

        def overhear(notice: str) -> None:
            notices.append(notice)
            hear(notice)

        other.hub.on_notice = overhear
        with holder(api, "read") as client:
            headers = {"Authorization": client.headers["Authorization"]}
            with other.anyone.stream("GET", path, headers=headers) as stream:
                lines = stream.iter_lines()
                assert "retry:" in next(lines)
                api.client.delete(f"/api/keys/{client.headers['X-Key']}")
                assert "event: end" not in list(lines)
            wait_until(lambda: notices == [f"key {client.headers['X-Key']}"], what="the other api to hear of it")
            assert_problem(other.anyone.get(path, headers=headers), 401, "unauthenticated")


def test_a_revoked_keys_websocket_is_closed(api: Api, errand: Make) -> None:
    with holder(api, "read") as client:
        headers = {"Authorization": client.headers["Authorization"]}
        url = f"ws://127.0.0.1:{api.port}/api/jobs/{errand().id}/ws"
        with connect(url, additional_headers=headers, open_timeout=20) as socket:
            assert json.loads(socket.recv(timeout=20))["state"] == "queued"
            api.client.delete(f"/api/keys/{client.headers['X-Key']}")
            with pytest.raises(ConnectionClosed) as closed:
                socket.recv(timeout=20)
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1008
        wait_until(lambda: api.hub.subscriber_count == 0, what="the follower to be dropped")


@pytest.fixture
def limited(lite_api: Api, settings_env: SettingsEnv) -> Api:
    settings_env(rate_limits="on")
    return lite_api


def test_route_reports_its_rate_limit_and_enforces_it(limited: Api) -> None:
    """The old service's limits where its clients know them; each key counts for itself."""
    with holder(limited, "read", "write") as first_client, holder(limited, "read", "write") as second_client:
        wait_until(lambda: clock.now().second < 50, timeout_s=30, what="a window with enough time left")
        for left in range(49, -1, -1):
            answer = first_client.post("/api/search", json={"query": "x"})
            assert answer.headers["ratelimit"].startswith(f'"search";r={left};t=')
        assert answer.headers["ratelimit-policy"] == '"search";q=50;w=60'
        refused = first_client.post("/api/search", json={"query": "x"})
        assert_problem(refused, 429, "rate_limited")
        assert refused.json()["error"] == "Rate limit exceeded: 50 per 1 minute"
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert second_client.post("/api/search", json={"query": "x"}).status_code == 200
        assert first_client.get("/api/jobs").headers["ratelimit-policy"] == '"jobs";q=6000;w=60'
        assert first_client.get("/api/stats").headers["ratelimit-policy"] == '"stats";q=100;w=60'


def test_key_may_have_a_separate_rate_limit(limited: Api) -> None:
    with holder(limited, "read") as client:
        path = f"/api/keys/{client.headers['X-Key']}"
        own = {"POST /api/search": "2/day", "*": "unlimited"}
        assert limited.client.patch(path, json={"rate_limits": own}).json()["rate_limits"] == own
        codes = [client.post("/api/search", json={"query": "x"}).status_code for _ in range(3)]
        assert codes == [200, 200, 429]
        assert "ratelimit" not in client.get("/api/jobs").headers
        assert_problem(limited.client.patch(path, json={"rate_limits": {"*": "often"}}), 422, "rate")
        assert limited.client.patch(path, json={"name": "new", "scopes": ["write"]}).json()["name"] == "new"
        assert_problem(client.get("/api/jobs"), 403, "scope_missing")


def test_public_routes_have_no_rate_limit(limited: Api) -> None:
    assert "ratelimit" not in limited.anyone.get("/health").headers


def test_websockets_are_counted_like_requests(limited: Api, errand: Make) -> None:
    path = f"/api/jobs/{errand().id}/ws"
    with holder(limited, "read") as client:
        own = {"rate_limits": {"GET /api/jobs/{job_id}/ws": "1/day"}}
        assert limited.client.patch(f"/api/keys/{client.headers['X-Key']}", json=own).status_code == 200
        headers = {"Authorization": client.headers["Authorization"]}
        url = f"ws://127.0.0.1:{limited.port}{path}"
        with connect(url, additional_headers=headers, open_timeout=20) as socket:
            assert json.loads(socket.recv(timeout=20))["state"] == "queued"
        with pytest.raises(InvalidStatus) as refused:
            connect(url, additional_headers=headers, open_timeout=20)
        assert refused.value.response.status_code == 429
        assert int(refused.value.response.headers["retry-after"]) >= 1
