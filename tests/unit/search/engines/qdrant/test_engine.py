"""Faults of Qdrant: lost, killed, too old, malformed answers, refusals, one of three nodes down; the index recovers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from app.core import clock, http
from app.core.db import database
from app.core.errors import Cancelled, Rejected, Snooze, Stale, Unavailable
from app.jobs.ledger import commands, ends
from app.jobs.worker.progress import Progress, ProgressPublisher
from app.search.engine import engine
from app.search.index.generations import active
from app.search.index.write import force_rebuild, prune_changes
from app.search.jobs import FollowIndex
from app.search.query import search
from tests.support.databases import SettingsEnv
from tests.support.desk import TENANT, Desk, on_a_loop, open_job
from tests.support.qdrant import QdrantServer
from tests.support.waiting import wait_until


@pytest.fixture
def desk(sqlite_url: str, settings_env: SettingsEnv, qdrant_url: str) -> Desk:
    settings_env(database_url=sqlite_url, search_engine="qdrant", qdrant_url=qdrant_url)
    return Desk(database())


@pytest.fixture
def separate_desk(sqlite_url: str, settings_env: SettingsEnv, qdrant_server: QdrantServer) -> Desk:
    """With a server that may be hurt."""
    settings_env(database_url=sqlite_url, search_engine="qdrant", qdrant_url=qdrant_server.url)
    return Desk(database())


def _whole(desk: Desk) -> None:
    report = desk.verify()
    assert report["ok"], report
    assert report["documents"] > 0 and report["vectors"] == report["chunks"] and report["postings"] > 0


def test_lost_index_is_rebuilt(desk: Desk, shared_qdrant: QdrantServer) -> None:
    """All of it, by the next job; until then a search says that it is being built."""
    for n in range(5):
        desk.put(f"the mill number{n}", external_id=str(n))
    shared_qdrant.drop()
    with pytest.raises(Unavailable, match="being built"):
        desk.find("number3")
    desk.work(desk.give("one more heron", external_id="y").job.id)
    outcome = desk.follow()
    assert outcome is not None and outcome["built"] and outcome["documents"] == 6
    assert desk.find("number3", mode="keyword")["total"] == 1
    assert desk.find("heron", mode="keyword")["total"] == 1
    _whole(desk)


def test_empty_index_is_no_error(desk: Desk) -> None:
    assert desk.find("anything")["total"] == 0
    assert on_a_loop(search.stats(TENANT)).documents == 0
    assert on_a_loop(search.similar(TENANT, 1, limit=3)) == []


def test_rebuild_serves_the_old_index_until_the_new_one_is_complete(desk: Desk, shared_qdrant: QdrantServer) -> None:
    """And leaves one collection behind, also when it was interrupted and went on."""
    for n in range(3):
        desk.put(f"the mill number{n}", external_id=str(n))
    before = shared_qdrant.collections()
    desk.db.transaction(force_rebuild)
    assert desk.find("number1", mode="keyword")["total"] == 1
    desk.put("the heron", external_id="h")
    after = shared_qdrant.collections()
    assert len(before) == len(after) == 1 and before != after
    assert desk.find("heron", mode="keyword")["total"] == 1
    _whole(desk)


def test_index_older_than_the_pruned_changes_is_rebuilt(desk: Desk) -> None:
    desk.put("the heron", external_id="1")
    desk.work(desk.give("the sluice", external_id="1").job.id)
    desk.db.transaction(prune_changes, clock.now().replace(year=9000))
    outcome = desk.follow()
    assert outcome is not None and outcome["built"]
    assert desk.find("sluice", mode="keyword")["total"] == 1
    assert desk.find("heron", mode="keyword")["total"] == 0


def test_verify_finds_and_repairs_differences(desk: Desk, shared_qdrant: QdrantServer) -> None:
    """A point that is missing, one too many, and one without its vector."""
    for n in range(4):
        desk.put(f"the mill number{n}", external_id=str(n))
    _whole(desk)
    name = shared_qdrant.collections()[0]
    points = f"{shared_qdrant.url}/collections/{name}/points"
    with http.client(10) as client:
        ghost = {"id": 999, "vector": {}, "payload": {"tenant": TENANT, "document": 77, "head": True}}
        client.put(f"{points}?wait=true", json={"points": [ghost]}).raise_for_status()
        client.post(f"{points}/delete?wait=true", json={"points": [1]}).raise_for_status()
        client.post(f"{points}/vectors/delete?wait=true", json={"points": [2], "vector": ["dense"]}).raise_for_status()
    report = desk.verify(repair=True)
    assert (report["missing"], report["different"], report["extra"]) == (["1"], ["2"], ["77"]) and not report["ok"]
    assert report["repaired"] == 3
    desk.follow()
    _whole(desk)


def test_a_follower_that_lost_its_job_writes_nothing(desk: Desk, shared_qdrant: QdrantServer) -> None:
    """Stale or cancelled: the transaction that every step begins with says so."""
    desk.work(desk.give("the mill", external_id="1").job.id)
    job_id = desk.db.read(open_job, FollowIndex.kind)
    assert job_id is not None
    progress = desk.claim(job_id)
    publisher = ProgressPublisher(lambda claim, snapshot: None)
    late = Progress(progress.claim._replace(fence=progress.claim.fence - 1), publisher)
    with pytest.raises(Stale):
        on_a_loop(_follow(late))
    desk.db.transaction(commands.cancel, TENANT, job_id)
    with pytest.raises(Cancelled):
        on_a_loop(_follow(progress))
    assert shared_qdrant.collections() == []


async def _follow(progress: Progress) -> None:
    await engine().follow(await active(), progress)


def test_unreachable_server_is_retried(separate_desk: Desk, qdrant_server: QdrantServer) -> None:
    """The job asks to run later, search says why it cannot answer; both go on when it is back."""
    separate_desk.put("the mill", external_id="1")
    qdrant_server.kill()
    with pytest.raises(Unavailable, match="cannot be reached"):
        separate_desk.find("mill")
    separate_desk.work(separate_desk.give("the heron", external_id="2").job.id)
    with pytest.raises(Snooze, match="cannot be reached"):
        separate_desk.follow()
    separate_desk.db.transaction(ends.free, separate_desk.worker_id, "the test lets go of it")
    qdrant_server.start()
    assert separate_desk.find("mill", mode="keyword")["total"] == 1  # what was answered was on disk
    separate_desk.put("the sluice", external_id="3")
    assert separate_desk.find("heron", mode="keyword")["total"] == 1
    _whole(separate_desk)


class ScriptedServer(ThreadingHTTPServer):
    """Answers like a Qdrant of some version, and otherwise as it was told."""

    def __init__(self, version: str, status: int, body: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Lies)
        self.version, self.status, self.body = version, status, body


class _Lies(BaseHTTPRequestHandler):
    server: ScriptedServer

    def do_GET(self) -> None:
        if self.path == "/":
            self._send(200, json.dumps({"title": "qdrant", "version": self.server.version, "commit": None}).encode())
        else:
            self._send(self.server.status, self.server.body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self._send(self.server.status, self.server.body)

    def do_PUT(self) -> None:
        self.do_POST()

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def scripted_server(request: pytest.FixtureRequest) -> Iterator[ScriptedServer]:
    server = ScriptedServer(*request.param)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def _error(text: str) -> bytes:
    return json.dumps({"status": {"error": text}, "time": 0, "result": None}).encode()


@pytest.mark.parametrize(
    ("scripted_server", "kind", "says"),
    [
        (("1.18.2", 200, b"{}"), Rejected, r"1\.18\.2; 1\.19 or newer"),
        (("1.20.0-dev", 401, _error("Invalid API key")), Rejected, "MILLRACE_QDRANT_API_KEY"),
        (("1.20.0", 200, b"<html>"), Unavailable, "does not answer as Qdrant"),
        (("1.20.0", 200, b'{"result": {"points": 7}}'), Unavailable, "does not answer as Qdrant"),
        (("1.20.0", 400, _error("Wrong input: bad vector")), Rejected, "bad vector"),
        (("1.20.0", 503, _error("shard is recovering")), Unavailable, "recovering"),
        (("1.20.0", 502, b"<h1>Bad Gateway</h1>"), Unavailable, "502"),
        (("1.20.0", 507, _error("storage quota")), Unavailable, "quota"),
        (("what", 200, b"{}"), Rejected, "or newer"),
    ],
    indirect=["scripted_server"],
)
def test_malformed_answers_and_refusals_of_the_server(
    scripted_server: ScriptedServer, kind: type[Exception], says: str, sqlite_url: str, settings_env: SettingsEnv
) -> None:
    settings_env(
        database_url=sqlite_url,
        search_engine="qdrant",
        qdrant_url=f"http://127.0.0.1:{scripted_server.server_address[1]}",
    )
    with pytest.raises(kind, match=says):
        Desk(database()).find("mill")


def test_missing_or_wrong_api_key(tmp_path: Path, sqlite_url: str, settings_env: SettingsEnv) -> None:
    server = QdrantServer(tmp_path / "locked", key="a-key-of-tests")
    server.start()
    try:
        settings_env(database_url=sqlite_url, search_engine="qdrant", qdrant_url=server.url)
        desk = Desk(database())
        with pytest.raises(Rejected, match="MILLRACE_QDRANT_API_KEY"):
            desk.find("mill")
        settings_env(qdrant_api_key="a-key-of-tests")
        desk = Desk(database())
        desk.put("the mill", external_id="1")
        assert desk.find("mill", mode="keyword")["total"] == 1
    finally:
        server.stop()


@pytest.mark.timeout(180)
def test_a_cluster_with_one_node_gone(tmp_path: Path, sqlite_url: str, settings_env: SettingsEnv) -> None:
    """Three nodes, every vector on two of them: reads and writes go on without the one that was asked first."""
    first = QdrantServer(tmp_path / "one", cluster=True)
    nodes = [first, *(QdrantServer(tmp_path / name, cluster=True, first=first) for name in ("two", "three"))]
    try:
        for node in nodes:
            node.start()
        wait_until(lambda: _peers(first) == 3, timeout_s=30, what="three nodes that know each other")
        urls = ",".join(node.url for node in reversed(nodes))  # the one that is killed is asked first
        settings_env(
            database_url=sqlite_url, search_engine="qdrant", qdrant_url=urls, qdrant_replicas=2, qdrant_shards=3,
            qdrant_timeout_s=10,
        )  # fmt: skip
        desk = Desk(database())
        for n in range(12):
            desk.put(f"the mill number{n}", external_id=str(n))
        nodes[2].kill()
        for n in range(12):
            assert desk.find(f"number{n}", mode="keyword")["total"] == 1
        assert desk.find("mill")["total"] == 12

        def written() -> bool:
            try:
                desk.put("the heron", external_id="h")
            except Snooze:
                desk.db.transaction(ends.free, desk.worker_id, "it waits")
                return False
            return True

        wait_until(written, timeout_s=60, what="a write with one node gone")
        assert desk.find("heron", mode="keyword")["total"] == 1
    finally:
        for node in nodes:
            node.stop()


def _peers(node: QdrantServer) -> int:
    with http.client(5) as client:
        return len(client.get(f"{node.url}/cluster").json()["result"].get("peers", {}))
