"""A1: no sequence of calls reaches more than the scopes of the caller list."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.core.db import database
from app.jobs.children.pipeline import Pipeline
from app.jobs.definition import Job, definition
from app.jobs.enqueued import EnqueuedJob
from app.jobs.inspect.bulk import Bulk
from app.jobs.ledger.enqueue import enqueue
from app.jobs.models import JobRow, ScheduleRow
from app.jobs.schedules import store
from app.jobs.schedules.store import Plan
from app.retention.jobs import Sweep
from app.search.jobs import DropGeneration, SwapGeneration, VerifyIndex
from app.sources.jobs import ScanFolder
from app.tenants import scopes
from tests.support.api_keys import holder
from tests.support.problems import assert_problem
from tests.unit.api.conftest import Api, lite_api

__all__ = ["lite_api"]

TENANT = "default"


class Opened(Job, kind="adversary.opened", open_to="write"):
    """For every key that writes."""

    text: str = ""


class Ruled(Job, kind="adversary.ruled", open_to="admin"):
    """For administrators."""

    text: str = ""


class Shared(Job, kind="adversary.shared", open_to="operator"):
    """For operators."""

    text: str = ""


class Inner(Job, kind="adversary.inner"):
    """For the program alone."""

    text: str = ""


KINDS = ("adversary.opened", "adversary.ruled", "adversary.shared", "adversary.inner", "sources.scan_folder",
         "search.verify", "search.swap_generation", "search.follow", "retention.sweep", "jobs.pipeline")  # fmt: skip
GRANTS = ("read", "write", "admin", "kind:sources.*", "kind:search.*", "kind:search.verify", "kind:s*", "kind:jobs.*",
          "kind:adversary.*", "kind:adversary.shared", "kind:retention.*", "collection:c")  # fmt: skip
RESERVED = (Shared(), ScanFolder(), VerifyIndex(), SwapGeneration(name="x"), DropGeneration(name="x"))


def _enqueue(job: Job) -> EnqueuedJob:
    return database().transaction(lambda session: enqueue(session, job, tenant=TENANT))


def _jobs() -> dict[str, tuple[Any, ...]]:
    """Return all jobs with what a caller can change of them."""
    columns = (JobRow.kind, JobRow.state, JobRow.payload, JobRow.cancel_requested_at, JobRow.discarded_at)
    query = sa.select(JobRow.id, *columns, JobRow.priority, JobRow.expires_at, JobRow.due_at)
    return database().read(lambda session: {row[0]: tuple(row[1:]) for row in session.execute(query)})


def _fail(job: EnqueuedJob) -> str:
    values = {"state": "failed", "finished_at": job.created_at}

    def fail(session: Any) -> None:
        session.execute(
            sa.update(JobRow).where(JobRow.id == job.id).values(state="running", admitted_at=job.created_at)
        )
        session.execute(sa.update(JobRow).where(JobRow.id == job.id).values(values))

    database().transaction(fail)
    return job.id


def _schedule(kind: type[Job], payload: dict[str, Any] | None = None) -> str:
    plan = Plan(kind.kind, payload or {}, every_s=3600)
    return str(database().transaction(lambda session: store.create(session, TENANT, f"of {kind.kind}", plan)).id)


def _schedule_row(schedule_id: int) -> ScheduleRow:
    return database().read(lambda session: session.get_one(ScheduleRow, schedule_id))


# Each example by itself


def test_an_administrator_makes_itself_no_key_for_operators_kinds(lite_api: Api) -> None:
    """The key may exist; it starts nothing, alone, in a list, by a schedule, or seen in the list of kinds."""
    with holder(lite_api, "admin", tenant="acme") as admin:
        for job in RESERVED:
            for scope in (f"kind:{job.kind}", f"kind:{job.kind.partition('.')[0]}.*", f"kind:{job.kind[0]}*"):
                made = admin.post("/api/keys", json={"name": "mine", "scopes": ["read", "write", scope]})
                assert made.status_code in (201, 403)
                if made.status_code == 201:
                    _starts_nothing(lite_api, job, {"Authorization": f"Bearer {made.json()['key']}"})
    assert _jobs() == {}


def _starts_nothing(api: Api, job: Job, headers: dict[str, str]) -> None:
    start = {"kind": job.kind, "payload": job.model_dump(mode="json")}
    anyone = api.anyone
    assert_problem(anyone.post("/api/jobs", json=start, headers=headers), 403, "scope_missing")
    assert_problem(anyone.post("/api/jobs", json=[start], headers=headers), 403, "scope_missing")
    plan = {"name": "mine", "every_s": 60, **start}
    assert_problem(anyone.post("/api/schedules", json=plan, headers=headers), 403, "scope_missing")
    listed = anyone.get("/api/kinds", headers=headers).json()["data"]
    assert job.kind not in {kind["kind"] for kind in listed}


@pytest.mark.parametrize("grants", [("read", "write"), ("admin",), ("write", "kind:s*", "kind:adversary.*")])
def test_an_operators_job_is_changed_by_no_other_key(lite_api: Api, grants: tuple[str, ...]) -> None:
    failed = [_fail(_enqueue(job)) for job in RESERVED]
    waiting = [_enqueue(job).id for job in RESERVED]
    before = _jobs()
    with holder(lite_api, *grants) as key:
        for job_id in (*waiting, *failed):
            for method, path, body in (
                ("POST", "/cancel", None), ("POST", "/retry", None), ("POST", "/run-now", None),
                ("POST", "/discard", None), ("PATCH", "", {"payload": {"name": "x"}}), ("PATCH", "", {"priority": 100}),
                ("PATCH", "", {"expires_at": "2099-01-01T00:00:00Z"}),
            ):  # fmt: skip
                assert_problem(key.request(method, f"/api/jobs/{job_id}{path}", json=body), 403, "scope_missing")
    assert _jobs() == before
    assert lite_api.client.post(f"/api/jobs/{waiting[0]}/cancel").json()["state"] == "cancelled"


def test_bulk_actions_leave_operators_jobs(lite_api: Api) -> None:
    mine, theirs = _enqueue(Opened()), _enqueue(Shared())
    with holder(lite_api, "read", "write", "kind:adversary.*") as key:
        body = {"action": "cancel", "filter": {"created_before": "2099-01-01T00:00:00Z"}}
        preview = key.post("/api/jobs:bulk", json=body | {"dry_run": True}).json()
        assert (preview["matched"], preview["sample"]) == (1, [mine.id])
        started = key.post("/api/jobs:bulk", json=body)
        assert started.status_code == 202
    job = Bulk.load(lite_api.client.get(f"/api/jobs/{started.json()['id']}").json()["payload"], 1)
    assert {theirs.kind, "sources.scan_folder", "search.verify"} <= set(job.except_kinds)
    assert lite_api.client.post("/api/jobs:bulk", json=body | {"dry_run": True}).json()["matched"] == 2


def test_the_payload_of_a_closed_kind_stays(lite_api: Api) -> None:
    """Steps of a pipeline would start any kind."""
    swap = {"kind": SwapGeneration.kind, "payload": {"name": "x"}, "payload_version": 1}
    payloads = {_enqueue(Pipeline.of(Opened())).id: {"steps": [swap]}, _enqueue(Inner()).id: {"text": "x"}}
    for grants in (("read", "write"), ("admin",), ("kind:jobs.*", "kind:adversary.*")):
        with holder(lite_api, *grants) as key:
            for job_id, payload in payloads.items():
                assert_problem(key.patch(f"/api/jobs/{job_id}", json={"payload": payload}), 403, "kind_closed")
    for job_id, payload in payloads.items():
        assert lite_api.client.patch(f"/api/jobs/{job_id}", json={"payload": payload}).status_code == 200


def test_an_operators_schedule_is_changed_by_no_other_key(lite_api: Api) -> None:
    schedules = {kind.kind: _schedule(kind) for kind in (Shared, ScanFolder, VerifyIndex, Inner, Sweep)}
    for grants in (("read", "write"), ("admin",), ("write", "kind:s*", "kind:adversary.*", "kind:retention.*")):
        with holder(lite_api, *grants) as key:
            for schedule in schedules.values():
                for method, path, body in (
                    ("POST", "/run", None), ("POST", "/pause", None), ("POST", "/resume", None), ("DELETE", "", None),
                    ("PATCH", "", {"every_s": 60}), ("PATCH", "", {"kind": Opened.kind, "payload": {}}),
                ):  # fmt: skip
                    answer = key.request(method, f"/api/schedules/{schedule}{path}", json=body)
                    assert answer.status_code == 403, (method, path, answer.text)
    for kind, schedule in schedules.items():
        row = _schedule_row(int(schedule))
        assert (row.kind, row.every_s, row.paused_at) == (kind, 3600, None)
    assert _jobs() == {}


def test_an_administrator_does_nothing_to_an_operators_key(lite_api: Api) -> None:
    with holder(lite_api, "operator") as operator, holder(lite_api, "admin") as admin:
        path = f"/api/keys/{operator.headers['X-Key']}"
        for answer in (
            admin.delete(path), admin.post(f"{path}/rotate"), admin.patch(path, json={"scopes": ["read"]}),
            admin.patch(path, json={"rate_limits": {"*": "1/day"}}), admin.patch(path, json={"name": "x"}),
        ):  # fmt: skip
            assert_problem(answer, 403, "scope_missing")
        own = f"/api/keys/{admin.headers['X-Key']}"
        assert_problem(admin.patch(own, json={"scopes": ["operator"]}), 403, "scope_missing")
        assert operator.get("/api/tenants").status_code == 200
        assert admin.delete(own).json()["state"] == "revoked"  # its own it may


def test_a_stored_answer_is_for_callers_with_the_same_scopes(lite_api: Api) -> None:
    key, start = {"Idempotency-Key": "k"}, {"kind": Ruled.kind, "payload": {"text": "secret"}}
    assert lite_api.client.post("/api/jobs", json=start, headers=key).status_code == 202
    made = {"name": "m", "scopes": ["operator"]}
    assert lite_api.client.post("/api/keys", json=made, headers={"Idempotency-Key": "o"}).status_code == 201
    with holder(lite_api, "admin") as admin, holder(lite_api, "admin") as second:
        assert_problem(admin.post("/api/jobs", json=start, headers=key), 422, "idempotency_key_reused")
        assert_problem(
            admin.post("/api/keys", json=made, headers={"Idempotency-Key": "o"}), 422, "idempotency_key_reused"
        )
        own = {"Idempotency-Key": "own"}
        first = admin.post("/api/jobs", json=start, headers=own)
        again = second.post("/api/jobs", json=start, headers=own)
        assert (again.json()["id"], again.headers["Idempotency-Replayed"]) == (first.json()["id"], "true")


# Any sequence


def _may_start(granted: frozenset[str], kind: str) -> bool:
    """Return True if the scopes list this kind, said once more and by itself."""
    opened = definition(kind)
    assert opened is not None
    patterns = [scope.removeprefix("kind:") for scope in granted if scope.startswith("kind:")]
    named = any(kind == name or (name[-1] == "*" and kind.startswith(name[:-1])) for name in patterns)
    match opened.open_to:
        case "write":
            return named or bool(granted & {"write", "admin"})
        case "admin":
            return named or "admin" in granted
    return False


@dataclass
class Attacker:
    """An identity, and the keys that it makes."""

    granted: frozenset[str]
    client: httpx.Client
    url: str
    closing: ExitStack
    keys: list[tuple[frozenset[str], httpx.Client]] = field(default_factory=list)

    def make_key(self, client: httpx.Client, grants: list[str]) -> None:
        answer = client.post("/api/keys", json={"name": "made", "scopes": grants})
        assert (answer.status_code == 201) <= ("operator" not in grants)
        if answer.status_code == 201:
            headers = {"Authorization": f"Bearer {answer.json()['key']}"}
            made = self.closing.enter_context(httpx.Client(base_url=self.url, headers=headers, trust_env=False))
            self.keys.append((frozenset(grants), made))


KIND = st.sampled_from(KINDS)
GRANT_LISTS = st.lists(st.sampled_from([*GRANTS, "operator"]), min_size=1, max_size=3, unique=True)
JOB_ACTS = st.sampled_from(["cancel", "retry", "run-now", "discard", "payload", "priority"])
SCHEDULE_ACTS = st.sampled_from(["run", "pause", "resume", "delete", "patch"])
STEP = st.one_of(
    st.tuples(st.just("start"), KIND),
    st.tuples(st.just("replay"), KIND),
    st.tuples(st.just("schedule"), KIND),
    st.tuples(st.just("turn schedule"), KIND),
    st.tuples(st.just("make key"), GRANT_LISTS),
    st.tuples(st.just("widen key"), GRANT_LISTS),
    st.tuples(st.just("attack job"), JOB_ACTS),
    st.tuples(st.just("attack schedule"), SCHEDULE_ACTS),
    st.tuples(st.just("attack key"), st.sampled_from(["DELETE", "PATCH", "rotate"])),
    st.tuples(st.just("index"), st.sampled_from(["verify", "rebuild", "generations/build", "generations/rollback"])),
)  # fmt: skip


@dataclass(frozen=True)
class Targets:
    """What belongs to operators."""

    jobs: tuple[str, ...]
    schedules: tuple[str, ...]
    key: str


def _take(attacker: Attacker, client: httpx.Client, step: tuple[str, Any], targets: Targets) -> None:
    match step:
        case "start", kind:
            client.post("/api/jobs", json={"kind": kind})
        case "replay", kind:
            client.post("/api/jobs", json={"kind": kind}, headers={"Idempotency-Key": f"operator {kind}"})
        case "schedule", kind:
            made = client.post("/api/schedules", json={"name": f"{kind} {id(step)}", "kind": kind, "every_s": 60})
            if made.status_code == 201:
                client.post(f"/api/schedules/{made.json()['id']}/run")
        case "turn schedule", kind:
            body = {"name": f"turned {kind} {id(step)}", "kind": Opened.kind, "every_s": 60}
            made = client.post("/api/schedules", json=body)
            if made.status_code == 201:
                client.patch(f"/api/schedules/{made.json()['id']}", json={"kind": kind})
                client.post(f"/api/schedules/{made.json()['id']}/run")
        case "make key", grants:
            attacker.make_key(client, grants)
        case "widen key", grants:
            own = client.get("/api/me").json().get("key_id")
            client.patch(f"/api/keys/{own}", json={"scopes": grants})
        case "attack job", act:
            _attack_jobs(client, act, targets)
        case "attack schedule", act:
            for schedule in targets.schedules:
                path = f"/api/schedules/{schedule}"
                change = {"kind": Opened.kind} if act == "patch" else None
                method = {"delete": "DELETE", "patch": "PATCH"}.get(act, "POST")
                client.request(method, path if method != "POST" else f"{path}/{act}", json=change)
        case "attack key", how:
            path = f"/api/keys/{targets.key}"
            client.request("POST", f"{path}/rotate") if how == "rotate" else client.request(
                how, path, json={"name": "x"}
            )
        case "index", what:
            client.post(f"/api/index/{what}")


def _attack_jobs(client: httpx.Client, act: str, targets: Targets) -> None:
    bodies: dict[str, dict[str, Any]] = {"payload": {"payload": {}}, "priority": {"priority": 100}}
    for job_id in targets.jobs:
        if act in bodies:
            client.patch(f"/api/jobs/{job_id}", json=bodies[act])
        else:
            client.post(f"/api/jobs/{job_id}/{act}")


@pytest.fixture
def targets(lite_api: Api) -> Iterator[Targets]:
    jobs = tuple(_enqueue(job).id for job in RESERVED)
    failed = _fail(_enqueue(Shared(text="failed")))
    schedules = tuple(_schedule(kind) for kind in (Shared, ScanFolder, VerifyIndex))
    for kind in KINDS:
        lite_api.client.post("/api/jobs", json={"kind": kind}, headers={"Idempotency-Key": f"operator {kind}"})
    with holder(lite_api, "operator") as operator:
        yield Targets((*jobs, failed), schedules, operator.headers["X-Key"])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(granted=GRANT_LISTS, steps=st.lists(st.tuples(st.integers(0, 5), STEP), min_size=1, max_size=12))
def test_no_sequence_of_calls_reaches_more_than_the_scopes_list(
    lite_api: Api, targets: Targets, granted: list[str], steps: list[tuple[int, tuple[str, Any]]]
) -> None:
    granted = [scope for scope in granted if scope != "operator"] or ["read"]
    with ExitStack() as closing:
        client = closing.enter_context(holder(lite_api, *granted))
        attacker = Attacker(frozenset(granted), client, lite_api.url, closing)
        attacker.keys.append((attacker.granted, client))
        # All that the first key may hand on: an administrator grants any scope but `operator`.
        reachable = frozenset(GRANTS) if "admin" in granted else frozenset(granted)
        before = _jobs()
        for number, step in steps:
            _take(attacker, attacker.keys[number % len(attacker.keys)][1], step, targets)
        after = _jobs()
    changed = {row[0] for job_id, row in before.items() if row != after[job_id]}
    assert all(_may_start(reachable, kind) for kind in changed), (granted, changed)
    for job_id in after.keys() - before.keys():
        assert _may_start(reachable, after[job_id][0]), (granted, after[job_id])
    everything = lite_api.client.get("/api/keys", params={"limit": 200}).json()["data"]
    assert [key["id"] for key in everything if scopes.OPERATOR in key["scopes"] and key["state"] == "active"] == [
        targets.key
    ]
