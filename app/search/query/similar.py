"""The meaning of a whole document: the mean of its chunks' vectors."""

from __future__ import annotations

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.search.embedders import Vectors
from app.search.engines.base import Model
from app.search.models import Chunk, vector_of

# The beginning represents a long document well enough.
MAX_CHUNKS = 500


def mean_vector(session: Session, tenant: str, document_id: int, model: Model) -> Vectors | None:
    """Return the mean vector, of length one; None if the document has no vectors of this model."""
    query = sa.select(vector_of(model.generation)).where(Chunk.tenant == tenant, Chunk.document_id == document_id)
    packed = [vector for vector in session.scalars(query.order_by(Chunk.ordinal).limit(MAX_CHUNKS)) if vector]
    if not packed:
        return None
    mean = np.frombuffer(b"".join(packed), "<f4").reshape(len(packed), -1).mean(axis=0)
    length = float(np.linalg.norm(mean))
    return (mean / length).astype(np.float32) if length else None
