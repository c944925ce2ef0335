"""The error of Qdrant that the API branches on; importing it does not load the client."""

from __future__ import annotations

from app.core.errors import Unavailable


class QdrantUnavailable(Unavailable):
    """No node can be reached, or the node that answers is not ready."""

    code = "qdrant_unavailable"
