"""Engine factory: the search engine that the settings select."""

from __future__ import annotations

import importlib
import threading
from weakref import WeakKeyDictionary

import sqlalchemy as sa

from app.core.db import database
from app.core.settings import get_settings
from app.search.engines.base import Engine
from app.search.engines.memory.engine import EmbeddedEngine

# By database: one process may use several.
_opened: WeakKeyDictionary[sa.Engine, EmbeddedEngine] = WeakKeyDictionary()
_opening = threading.Lock()


def engine() -> Engine:
    """Return the engine for this process's database."""
    if get_settings().search_engine == "qdrant":
        # Imported only when selected: its client takes a second and 60 MiB.
        opened: Engine = importlib.import_module("app.search.engines.qdrant.engine").QdrantEngine()
        return opened
    with _opening:
        return _opened.setdefault(database().engine, EmbeddedEngine())
