"""Embedders, which turn text into vectors: a built-in one without server or download, and others.

Vectors are float32 rows of length one, so that a dot product is their cosine; one without a known token is zero.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
from pydantic import SecretStr
from tokenizers import Tokenizer

from app.clients.embeddings import Dialect, Embeddings, EmbeddingServer
from app.core.errors import ConfigError
from app.core.settings import Settings, get_settings

Vectors = npt.NDArray[np.float32]

MODEL = "l2_supercat"
DIMENSION = 256
ANY_NAME = "millrace/local"


@dataclass(frozen=True)
class EmbedderSettings:
    """The settings of one embedder."""

    kind: str
    url: str
    model: str
    dimension: int | None
    api_key: SecretStr
    query_prompt: str
    document_prompt: str
    tokenizer: Path | None

    @classmethod
    def load(cls, settings: Settings, which: str) -> EmbedderSettings:
        """Return the settings of `which`: embedder or next_embedder."""
        values = {item.name: getattr(settings, f"{which}_{item.name}") for item in fields(cls) if item.name != "kind"}
        return cls(kind=getattr(settings, which), **values)


class Embedder(Protocol):
    """An embedding model. `name` identifies model and dimension: vectors of two names are never compared.

    A bag of words averages token vectors, so stop words only blur a query.
    """

    name: str
    dimension: int
    bag_of_words: bool
    tokenizer: Tokenizer

    async def embed_documents(self, texts: list[str]) -> Vectors: ...

    async def embed_query(self, text: str) -> Vectors: ...

    async def ping(self) -> None:
        """Raises Unavailable or Rejected if it cannot be used now."""

    async def close(self) -> None:
        """Close the connections of the running loop."""


class _Local(ABC):
    """An embedder in this process: `encode` blocks, so it runs in a thread."""

    dimension: int

    @abstractmethod
    def encode(self, texts: list[str]) -> Vectors: ...

    async def embed_documents(self, texts: list[str]) -> Vectors:
        return await asyncio.to_thread(self.encode, texts)

    async def embed_query(self, text: str) -> Vectors:
        vector: Vectors = (await asyncio.to_thread(self.encode, [text]))[0]
        return vector

    async def ping(self) -> None:
        await self.embed_query("ping")

    async def close(self) -> None:  # noqa: B027  nothing is open
        pass


class WordLlamaEmbedder(_Local):
    """Averaged token vectors of the model inside the wordllama wheel: a millisecond for a page, on any processor."""

    name = f"wordllama/{MODEL}/{DIMENSION}"
    dimension = DIMENSION
    bag_of_words = True

    def __init__(self) -> None:
        wordllama = _quiet_import("wordllama")
        folder = Path(wordllama.__file__ or "").parent
        # 0.4.0.post1 searches for its tokenizer in the wrong folder and would use the network without these two.
        self._model = wordllama.WordLlama.load(MODEL, cache_dir=folder, dim=DIMENSION, disable_download=True)
        # The model pads and never cuts; counting tokens needs a tokenizer that does neither.
        self.tokenizer = _plain(Tokenizer.from_str(self._model.tokenizer.to_str()))

    def encode(self, texts: list[str]) -> Vectors:
        if not texts:
            return np.zeros((0, self.dimension), np.float32)
        return _normal(np.asarray(self._model.embed(texts, norm=False), np.float32))


class FastEmbedder(_Local):
    """A transformer on this machine's processor, by the extra `fastembed`: a folder with an ONNX model and its
    tokenizer.json, or a model stored by `millrace models fetch`. Nothing is downloaded here."""

    bag_of_words = False

    def __init__(self, chosen: EmbedderSettings) -> None:
        try:
            fastembed = _quiet_import("fastembed")
        except ImportError as error:
            raise ConfigError("MILLRACE_EMBEDDER=fastembed needs the extra: pip install millrace[fastembed]") from error
        folder = Path(chosen.model)
        fetched = models_folder(get_settings()) / chosen.model.replace("/", "--")
        if not folder.is_dir():
            folder = fetched
        if not folder.is_dir():
            fix = f"millrace models fetch {chosen.model}"
            raise ConfigError(f"MILLRACE_EMBEDDER_MODEL: {chosen.model} is not a folder; run: {fix}")
        graph = next((path for name in ("model.onnx", "onnx/model.onnx") if (path := folder / name).exists()), None)
        if graph is None or not (folder / "tokenizer.json").exists():
            raise ConfigError(f"MILLRACE_EMBEDDER_MODEL: {folder} needs model.onnx and tokenizer.json")
        self.tokenizer = _plain(Tokenizer.from_file(str(folder / "tokenizer.json")))
        self._model = _onnx_model(fastembed, folder, graph)
        self.dimension = chosen.dimension or len(self.encode(["one"])[0])
        self.name = f"fastembed/{folder.name}/{self.dimension}"
        self._prompts = chosen.query_prompt, chosen.document_prompt
        self._computing = threading.Lock()

    def encode(self, texts: list[str]) -> Vectors:
        if not texts:
            return np.zeros((0, self.dimension), np.float32)
        return _normal(np.asarray(list(self._model.embed(texts)), np.float32))

    async def embed_documents(self, texts: list[str]) -> Vectors:
        return await asyncio.to_thread(self._one_at_a_time, [self._prompts[1] + text for text in texts])

    async def embed_query(self, text: str) -> Vectors:
        return await super().embed_query(self._prompts[0] + text)

    def _one_at_a_time(self, texts: list[str]) -> Vectors:
        # Each call uses all processors; two at once would only wait for each other.
        with self._computing:
            return self.encode(texts)


class RemoteEmbedder:
    """A server's model, named by the settings, so that keyword search works while it is unavailable."""

    bag_of_words = False

    def __init__(self, chosen: EmbedderSettings) -> None:
        kind = chosen.kind
        assert chosen.dimension is not None
        dialect: Dialect = "tei" if kind == "tei" else "openai"
        key = chosen.api_key.get_secret_value()
        self.dimension = chosen.dimension
        self._server = EmbeddingServer(dialect, chosen.url, chosen.model, self.dimension, key)
        self.name = f"{kind}/{chosen.model}/{self.dimension}"
        self._prompts = chosen.query_prompt, chosen.document_prompt
        # Without the model's own tokenizer, the built-in model's counts tokens; the counts are similar.
        path = chosen.tokenizer
        self.tokenizer = WordLlamaEmbedder().tokenizer if path is None else _plain(Tokenizer.from_file(str(path)))
        # A connection belongs to the loop that opened it.
        self._opened: WeakKeyDictionary[asyncio.AbstractEventLoop, Embeddings] = WeakKeyDictionary()

    async def embed_documents(self, texts: list[str]) -> Vectors:
        return await self._client().documents([self._prompts[1] + text for text in texts])

    async def embed_query(self, text: str) -> Vectors:
        return await self._client().query(self._prompts[0] + text)

    async def ping(self) -> None:
        await self._client().ping()

    async def close(self) -> None:
        client = self._opened.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.close()

    def _client(self) -> Embeddings:
        loop = asyncio.get_running_loop()
        if loop not in self._opened:
            self._opened[loop] = Embeddings(self._server)
        return self._opened[loop]


def models_folder(settings: Settings) -> Path:
    """Return the folder of fetched models."""
    return settings.data_dir / "models"


def _onnx_model(fastembed: ModuleType, folder: Path, graph: Path) -> Any:
    """Load a model that fastembed does not know, with the pooling that its files declare."""
    description = importlib.import_module("fastembed.common.model_description")
    runtime = importlib.import_module("onnxruntime")
    pooled = len(runtime.InferenceSession(str(graph), providers=["CPUExecutionProvider"]).get_outputs()[0].shape) == 2
    config = folder / "1_Pooling" / "config.json"
    first = not pooled and config.exists() and json.loads(config.read_text()).get("pooling_mode_cls_token")
    pooling = description.PoolingType.DISABLED if pooled else description.PoolingType.CLS if first else None
    name = f"{ANY_NAME}/{folder.name}"
    known = {model["model"] for model in fastembed.TextEmbedding.list_supported_models()}
    if name not in known:
        fastembed.TextEmbedding.add_custom_model(
            model=name,
            pooling=pooling or description.PoolingType.MEAN,
            normalization=True,
            sources=description.ModelSource(hf=name),
            dim=1,
            model_file=str(graph.relative_to(folder)),
        )
    return fastembed.TextEmbedding(name, specific_model_path=str(folder))


def _plain(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _normal(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    normal: Vectors = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return normal


def _quiet_import(name: str) -> ModuleType:
    """Import a module at its first use: it takes a second, and changes the program's logging, which is restored."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    module = importlib.import_module(name)
    root.handlers[:] = handlers
    root.setLevel(level)
    return module


_loading = threading.Lock()


def embedder() -> Embedder:
    """Return the embedder of the settings, loaded at first use (about a second) and cached."""
    with _loading:
        return _load("embedder")


@lru_cache(maxsize=1)
def _built_in() -> WordLlamaEmbedder:
    return WordLlamaEmbedder()


# By the name of the setting; reused while the settings stay the same.
_others: dict[str, tuple[EmbedderSettings, Embedder]] = {}


def next_embedder() -> Embedder | None:
    """Return the embedder of the next index generation, None if the settings name none."""
    with _loading:
        return _load("next_embedder") if get_settings().next_embedder else None


async def close_embedder() -> None:
    """Close the connections of the running loop in all loaded embedders."""
    for _, embedder_ in list(_others.values()):
        await embedder_.close()


def _load(which: str) -> Embedder:
    chosen = EmbedderSettings.load(get_settings(), which)
    if chosen.kind == "wordllama":
        return _built_in()
    known = _others.get(which)
    if known is None or known[0] != chosen:
        made: Embedder = FastEmbedder(chosen) if chosen.kind == "fastembed" else RemoteEmbedder(chosen)
        known = _others[which] = chosen, made
    return known[1]
