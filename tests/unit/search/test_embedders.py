"""Other models than the built-in one: here by fastembed, or a server's; the system with them, and without."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from app.core.db import database
from app.core.errors import ConfigError, Unavailable
from app.core.settings import get_settings
from app.search.embedders import embedder
from tests.fakes.embeddings import FakeEmbeddings
from tests.support.databases import SettingsEnv
from tests.support.desk import Desk, encode
from tests.support.tei import DIMENSION, TeiServer, minilm

ROOT = Path(__file__).parents[3]


def test_a_transformer_in_a_folder(sqlite_url: str, settings_env: SettingsEnv) -> None:
    """Vectors have the length and name of the model; documents are found by them."""
    settings_env(database_url=sqlite_url, embedder="fastembed", embedder_model=minilm())
    assert (embedder().name, embedder().dimension) == (f"fastembed/minilm/{DIMENSION}", DIMENSION)
    wheel, mill, law = encode(["a water wheel", "the mill by the river", "tax law of companies"])
    assert wheel @ mill > wheel @ law
    np.testing.assert_allclose(np.linalg.norm(wheel), 1, atol=1e-5)
    assert embedder().tokenizer.encode("word " * 3000).ids.__len__() > 2900
    desk = Desk(database())
    desk.put("The heron stands in the reed.", external_id="1")
    desk.put("Companies pay taxes by law.", external_id="2")
    assert desk.find("a bird by the water", mode="semantic")["results"][0]["document_id"] == "1"


def test_a_prompt_makes_a_difference(settings_env: SettingsEnv) -> None:
    settings_env(embedder="fastembed", embedder_model=minilm())
    plain = encode(["water"])
    settings_env(embedder_document_prompt="a story about the law: ")
    assert not np.allclose(plain, encode(["water"]), atol=1e-2)


def test_a_real_server(sqlite_url: str, settings_env: SettingsEnv, tei_server: TeiServer) -> None:
    settings_env(database_url=sqlite_url, **tei_server.settings)
    desk = Desk(database())
    desk.put("The heron stands in the reed.", external_id="1")
    desk.put("Companies pay taxes by law.", external_id="2")
    assert desk.find("a bird", mode="semantic")["results"][0]["document_id"] == "1"


def test_search_without_the_embedding_server_uses_words(sqlite_url: str, settings_env: SettingsEnv) -> None:
    """Without it words are searched and the answer says so, meaning is 503, and what is indexed waits for it."""
    with FakeEmbeddings().running() as player:
        settings_env(
            database_url=sqlite_url, embedder="tei", embedder_url=player.url, embedder_model="m", embedder_dimension=2
        )
        desk = Desk(database())
        assert embedder().name == "tei/m/2"
        desk.put("The heron stands in the reed.", external_id="1")
        assert desk.find("a bird", mode="semantic")["results"][0]["document_id"] == "1"
        assert desk.find("heron")["degraded"] == []
    response = desk.find("heron")
    assert response["total"] == 1 and "words alone" in response["degraded"][0] and response["mode"] == "hybrid"
    with pytest.raises(Unavailable):
        desk.find("heron", mode="semantic")
    assert desk.find("heron", mode="keyword")["degraded"] == []
    job = desk.give("The sluice is open.", external_id="2").job.id
    with pytest.raises(Unavailable):
        desk.work(job)


@pytest.mark.parametrize(
    ("env", "says"),
    [
        ({"embedder": "tei"}, "EMBEDDER=tei needs MILLRACE_EMBEDDER_URL, MILLRACE_EMBEDDER_MODEL, MILLRACE_EMBED"),
        ({"embedder": "openai", "embedder_url": "http://x/v1", "embedder_model": "m"}, "MILLRACE_EMBEDDER_DIMENSION"),
        ({"embedder": "fastembed"}, "MILLRACE_EMBEDDER_MODEL"),
        ({"embedder": "word2vec"}, "MILLRACE_EMBEDDER"),
    ],
)  # fmt: skip
def test_inconsistent_settings_are_one_sentence(env: dict[str, str], says: str, settings_env: SettingsEnv) -> None:
    settings_env(**env)
    with pytest.raises(ConfigError, match=says):
        get_settings()


def test_folder_without_a_model_names_the_missing_file(settings_env: SettingsEnv, tmp_path: Path) -> None:
    settings_env(embedder="fastembed", embedder_model=tmp_path)
    with pytest.raises(ConfigError, match=r"model\.onnx"):
        embedder()
    settings_env(embedder_model="BAAI/bge-small-en-v1.5")
    with pytest.raises(ConfigError, match="millrace models fetch BAAI/bge-small"):
        embedder()


def test_a_model_that_cannot_be_fetched(tmp_path: Path) -> None:
    """An unreachable hub is reported in one sentence, and no file is left behind."""
    env = {"PATH": "/usr/bin:/bin", "HF_ENDPOINT": "http://127.0.0.1:9", "MILLRACE_DATA_DIR": str(tmp_path / "data")}
    command = [sys.executable, "-m", "app", "models", "fetch", "some/model"]
    ran = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert ran.returncode == 3 and "some/model could not be fetched" in ran.stderr, ran.stderr
    assert not (tmp_path / "data" / "models" / "some--model").exists()


def test_a_process_with_wrong_settings_ends_with_two() -> None:
    env = {"PATH": "/usr/bin:/bin", "MILLRACE_EMBEDDER": "tei", "MILLRACE_DEMO": "true"}
    ran = subprocess.run(
        [sys.executable, "-m", "app", "api"], env=env, cwd=ROOT, capture_output=True, text=True, timeout=50
    )
    assert ran.returncode == 2 and "needs MILLRACE_EMBEDDER_URL" in ran.stderr
