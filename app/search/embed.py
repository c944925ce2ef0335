"""Text to vectors: one face, and the embedder that needs neither server nor download.

Vectors are float32 rows of length one, so that a dot product is their cosine; one without a known token is zero.
"""

from __future__ import annotations

import importlib
import logging
import threading
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Protocol

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from app.core.errors import ConfigError
from app.core.settings import get_settings

Vectors = npt.NDArray[np.float32]

MODEL = "l2_supercat"
DIMENSION = 256


class Embedder(Protocol):
    """`name` says model and dimension: vectors of two names are never compared. Calls block; they compute.

    A bag of words does not read sentences: words without meaning of their own only blur a query.
    """

    name: str
    dimension: int
    bag_of_words: bool
    tokenizer: Tokenizer

    def embed_documents(self, texts: list[str]) -> Vectors: ...

    def embed_query(self, text: str) -> Vectors: ...


class WordLlamaEmbedder:
    """Averaged token vectors of the model inside the wordllama wheel: a millisecond for a page, on any processor."""

    name = f"wordllama/{MODEL}/{DIMENSION}"
    dimension = DIMENSION
    bag_of_words = True

    def __init__(self) -> None:
        wordllama = _quiet_import("wordllama")
        folder = Path(wordllama.__file__ or "").parent
        # 0.4.0.post1 looks for its tokenizer in the wrong folder and would go to the network without these two.
        self._model = wordllama.WordLlama.load(MODEL, cache_dir=folder, dim=DIMENSION, disable_download=True)
        # The model pads and never cuts; counting tokens needs a tokenizer that does neither.
        self.tokenizer = Tokenizer.from_str(self._model.tokenizer.to_str())
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()

    def embed_documents(self, texts: list[str]) -> Vectors:
        if not texts:
            return np.zeros((0, self.dimension), np.float32)
        vectors = np.asarray(self._model.embed(texts, norm=False), np.float32)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        normal: Vectors = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
        return normal

    def embed_query(self, text: str) -> Vectors:
        vector: Vectors = self.embed_documents([text])[0]
        return vector


def _quiet_import(name: str) -> ModuleType:
    """Imported where it is used: it takes a second, and sets up the whole program's logging, which is undone here."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    module = importlib.import_module(name)
    root.handlers[:] = handlers
    root.setLevel(level)
    return module


_loading = threading.Lock()


def embedder() -> Embedder:
    """The embedder of the settings, loaded at first use (about a second) and kept."""
    with _loading:
        return _load(get_settings().embedder)


@lru_cache(maxsize=1)
def _load(name: str) -> Embedder:
    if name == "wordllama":
        return WordLlamaEmbedder()
    raise ConfigError(f"MILLRACE_EMBEDDER: unknown embedder {name!r}")
