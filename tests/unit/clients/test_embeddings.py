"""Embedding servers: a real one, and a fake with all faults."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from app.clients.embeddings import Dialect, Embeddings, EmbeddingServer, Vectors
from app.core.errors import Rejected, Unavailable
from tests.fakes.embeddings import FakeEmbeddings
from tests.support.tei import DIMENSION, TeiServer


@pytest.fixture
def fake_embeddings() -> Iterator[FakeEmbeddings]:
    with FakeEmbeddings().running() as server:
        yield server


def _with(server: EmbeddingServer, use: Callable[[Embeddings], Any], query_s: float = 5) -> Any:
    async def run() -> Any:
        client = Embeddings(server, pauses_s=(0.01, 0.02, 0.02), query_s=query_s)
        try:
            return await use(client)
        finally:
            await client.close()

    return asyncio.run(run())


def _server(fake_embeddings: FakeEmbeddings, dialect: Dialect = "tei", **other: Any) -> EmbeddingServer:
    return EmbeddingServer(dialect, fake_embeddings.url, **{"model": "m", "dimension": 2, **other})


def _documents(fake_embeddings: FakeEmbeddings, texts: list[str], dialect: Dialect = "tei", **other: Any) -> Vectors:
    vectors: Vectors = _with(_server(fake_embeddings, dialect, **other), lambda client: client.documents(texts))
    return vectors


@pytest.mark.parametrize("dialect", ["tei", "openai"])
def test_each_text_has_its_row_and_batches_fit(fake_embeddings: FakeEmbeddings, dialect: Dialect) -> None:
    fake_embeddings.max_batch = 300 if dialect == "openai" else 4
    texts = ["x" * length for length in range(1, 12)]
    rows = _documents(fake_embeddings, texts, dialect, key="secret")
    np.testing.assert_allclose(rows[:, 0] / rows[:, 1], range(1, 12), rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
    assert sorted(text for batch in fake_embeddings.batches for text in batch) == texts
    assert fake_embeddings.keys == {"Bearer secret"}
    assert _documents(fake_embeddings, [], dialect).shape == (0, 2)


def test_jobs_share_requests(fake_embeddings: FakeEmbeddings) -> None:
    """Ten concurrent calls with one text each share a few requests."""

    async def all_at_once(client: Embeddings) -> list[Vectors]:
        return list(await asyncio.gather(*(client.documents([f"text{n}"]) for n in range(10))))

    vectors = _with(_server(fake_embeddings), all_at_once)
    assert len(vectors) == 10 and all(rows.shape == (1, 2) for rows in vectors)
    assert len(fake_embeddings.batches) <= 5


def test_batch_shrinks_when_the_server_refuses_its_size(fake_embeddings: FakeEmbeddings) -> None:
    fake_embeddings.max_batch = 2
    assert _documents(fake_embeddings, ["a", "bb", "ccc", "dddd", "eeeee"]).shape == (5, 2)
    fake_embeddings.wrong = lambda texts: (413, b"too large", {}) if len(texts) > 1 else None
    assert _documents(fake_embeddings, ["a", "bb", "ccc"]).shape == (3, 2)


def test_a_text_that_is_refused_fails_alone(fake_embeddings: FakeEmbeddings) -> None:
    """The other texts of the request are sent again without it."""
    fake_embeddings.wrong = lambda texts: (
        (422, {"error": "no", "error_type": "Tokenizer"}, {}) if "bad" in texts else None
    )

    async def both(client: Embeddings) -> Any:
        return await asyncio.gather(client.documents(["one", "two"]), client.documents(["bad"]), return_exceptions=True)

    good, bad = _with(_server(fake_embeddings), both)
    assert good.shape == (2, 2)
    assert isinstance(bad, Rejected)


@pytest.mark.parametrize(
    ("status", "body", "kind", "says", "tries"),
    [
        (429, {"error": "no permit", "error_type": "Overloaded"}, Unavailable, "no permit", 4),
        (503, {"error": "unhealthy"}, Unavailable, "unhealthy", 4),
        (500, b"<h1>oops", Unavailable, "oops", 4),
        (424, {"error": "inference failed", "error_type": "Backend"}, Rejected, "inference failed", 3),
        (401, b"", Rejected, "MILLRACE_EMBEDDER_API_KEY", 1),
        (400, {"error": {"message": "unknown model"}}, Rejected, "unknown model", 1),
        (200, b"[[1.0", Rejected, "not JSON", 1),
        (200, {"vectors": 7}, Rejected, "holds no vectors", 1),
        (200, [[1.0, 2.0, 3.0]], Rejected, "MILLRACE_EMBEDDER_DIMENSION", 1),
        (200, [[1.0, 2.0], [1.0, 2.0]], Rejected, "MILLRACE_EMBEDDER_DIMENSION", 1),
        (200, b"[[NaN, 1.0]]", Rejected, "not finite", 1),
    ],
)
def test_server_errors_are_retried_or_raised(
    fake_embeddings: FakeEmbeddings, status: int, body: Any, kind: type[Exception], says: str, tries: int
) -> None:
    """Temporary failures are retried, permanent ones raise at once."""
    fake_embeddings.wrong = lambda texts: (status, body, {})
    with pytest.raises(kind, match=says):
        _documents(fake_embeddings, ["text"])
    assert len(fake_embeddings.batches) == tries


def test_busy_server_is_retried_after_its_delay(fake_embeddings: FakeEmbeddings) -> None:
    fake_embeddings.wrong = lambda texts: (
        (429, {"error": "busy"}, {"retry-after": "0"}) if len(fake_embeddings.batches) < 3 else None
    )
    assert _documents(fake_embeddings, ["a"]).shape == (1, 2)
    fake_embeddings.wrong = lambda texts: (429, {"error": "busy"}, {"retry-after": "3600"})
    with pytest.raises(Unavailable) as caught:
        _documents(fake_embeddings, ["a"])
    assert caught.value.retry_after_s == 3600


def test_server_of_another_kind_is_reported(fake_embeddings: FakeEmbeddings) -> None:
    fake_embeddings.info = {"model_id": "other", "model_type": {"embedding": {}}}
    with pytest.raises(Rejected, match="other"):
        _documents(fake_embeddings, ["a"])
    fake_embeddings.info = {"model_id": "m", "model_type": {"reranker": {}}}
    with pytest.raises(Rejected, match="no embedding model"):
        _documents(fake_embeddings, ["a"])
    fake_embeddings.info = b"hello"
    with pytest.raises(Rejected, match="not JSON"):
        _documents(fake_embeddings, ["a"])


def test_unreachable_or_silent_server_is_unavailable(fake_embeddings: FakeEmbeddings) -> None:
    unreachable = EmbeddingServer("tei", "http://127.0.0.1:9", "m", 2)
    with pytest.raises(Unavailable, match="cannot be reached"):
        _with(unreachable, lambda client: client.documents(["a"]))
    with pytest.raises(Unavailable, match="cannot be reached"):
        _with(unreachable, lambda client: client.query("a"))
    asleep = threading.Event()
    fake_embeddings.wrong = lambda texts: (200, [[1.0, 1.0]], {}) if asleep.wait(5) else None
    with pytest.raises(Unavailable, match=r"within 0\.2 s"):
        _with(_server(fake_embeddings), lambda client: client.query("a"), query_s=0.2)
    asleep.set()


def test_cancelled_job_does_not_cancel_others_of_its_batch(fake_embeddings: FakeEmbeddings) -> None:
    async def one_goes(client: Embeddings) -> Vectors:
        gone = asyncio.create_task(client.documents(["gone"] * 9))
        stays = asyncio.create_task(client.documents(["stays"]))
        await asyncio.sleep(0)
        gone.cancel()
        return await stays

    assert _with(_server(fake_embeddings), one_goes).shape == (1, 2)


def test_the_real_server(tei_server: TeiServer) -> None:
    """Its limits are read, similar texts have similar vectors, and a restart is survived."""
    server = EmbeddingServer("tei", tei_server.url, tei_server.model, DIMENSION)
    texts = ["a water wheel", "the mill by the river", "tax law of companies", "x " * 2000, "one more", "and another"]
    rows = _with(server, lambda client: client.documents(texts))
    assert rows.shape == (6, DIMENSION)
    assert rows[0] @ rows[1] > rows[0] @ rows[2]
    query = _with(server, lambda client: client.query("a water wheel"))
    np.testing.assert_allclose(query, rows[0], atol=1e-3)
    by_openai = EmbeddingServer("openai", f"{tei_server.url}/v1", "any", DIMENSION)
    same = _with(by_openai, lambda client: client.documents(texts[:3]))
    np.testing.assert_allclose(same, rows[:3], atol=1e-3)
    wrong = EmbeddingServer("tei", tei_server.url, tei_server.model, 7)
    with pytest.raises(Rejected, match="DIMENSION"):
        _with(wrong, lambda client: client.documents(["a"]))
    tei_server.kill()
    with pytest.raises(Unavailable):
        _with(server, lambda client: client.query("a"))


def test_text_over_the_limit_fails(fake_embeddings: FakeEmbeddings) -> None:
    """It is not sent for ever; the other texts get their vectors."""
    fake_embeddings.wrong = lambda texts: (413, b"too large", {}) if "bad" in texts else None

    async def both(client: Embeddings) -> Any:
        return await asyncio.wait_for(
            asyncio.gather(client.documents(["bad"]), client.documents(["a", "b"]), return_exceptions=True), 20
        )

    bad, good = _with(_server(fake_embeddings), both)
    assert isinstance(bad, Rejected) and good.shape == (2, 2)
    assert len(fake_embeddings.batches) < 12


@pytest.mark.parametrize(
    ("status", "body"), [(401, b""), (404, {"error": {"message": "no such model"}}), (200, {"vectors": 7})]
)
def test_error_for_the_whole_batch_is_not_retried_for_each_text(
    fake_embeddings: FakeEmbeddings, status: int, body: Any
) -> None:
    fake_embeddings.wrong = lambda texts: (status, body, {})
    with pytest.raises(Rejected):
        _documents(fake_embeddings, ["a", "b", "c", "d"])
    assert len(fake_embeddings.batches) == 1


def test_exhausted_quota_is_a_permanent_error(fake_embeddings: FakeEmbeddings) -> None:
    """OpenAI answers 429 for used-up credit, which is not retried; a rate limit may use milliseconds."""
    fake_embeddings.max_batch = 300
    used_up = {"error": {"message": "check your plan", "type": "insufficient_quota", "code": "insufficient_quota"}}
    fake_embeddings.wrong = lambda texts: (429, used_up, {})
    with pytest.raises(Rejected, match="check your plan"):
        _documents(fake_embeddings, ["a", "b"], "openai")
    assert len(fake_embeddings.batches) == 1
    slow = {"error": {"message": "slower"}}
    fake_embeddings.wrong = lambda texts: (
        (429, slow, {"retry-after-ms": "20"}) if len(fake_embeddings.batches) < 3 else None
    )
    assert _documents(fake_embeddings, ["a"], "openai").shape == (1, 2)
