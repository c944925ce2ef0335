"""The embedded model: from its wheel, without network, the same each time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from app.search.embedders import embedder
from tests.support.desk import encode

ROOT = Path(__file__).parents[3]
OFFLINE = """
import socket
def refuse(*_, **__): raise AssertionError("the network was asked")
socket.socket.connect = socket.getaddrinfo = refuse
from app.search.embedders import WordLlamaEmbedder
import logging
model = WordLlamaEmbedder()
assert model.encode(["water"]).shape == (1, 256)
assert logging.getLogger().handlers == []
"""


def test_model_loads_without_network() -> None:
    """In a fresh process with an empty home, and without touching the program's logging."""
    environment = {"HOME": "/nonexistent", "PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, "-c", OFFLINE], check=True, env=environment, cwd=ROOT, timeout=50)


def test_vectors_have_length_one() -> None:
    """But those of texts without a token, which are zero and find nothing."""
    vectors = encode(["water wheel", "a" * 5000, "", "🛞"])
    lengths = np.linalg.norm(vectors, axis=1)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(lengths, [1, 1, 0, 1], atol=1e-5)
    assert encode([]).shape == (0, 256)


def test_a_query_equals_the_same_document() -> None:
    documents = encode(["water", "mill by the river"])
    np.testing.assert_allclose(encode(["water"])[0], documents[0], atol=1e-6)


def test_similar_meanings_have_near_vectors() -> None:
    wheel, mill, law = encode(["a water wheel", "the mill by the river", "tax law of companies"])
    assert wheel @ mill > wheel @ law


def test_the_tokenizer_neither_pads_nor_cuts() -> None:
    """Chunks are measured with it."""
    encodings = embedder().tokenizer.encode_batch(["word " * 3000, "word"], add_special_tokens=False)
    assert len(encodings[0].ids) >= 3000 and len(encodings[1].ids) < 3
