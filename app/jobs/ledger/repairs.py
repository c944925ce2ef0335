"""Writes of consistency repairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import sql
from app.jobs.models import JobRow


def set_values(
    session: Session, ids: Sequence[str], condition: sa.ColumnElement[bool], values: Mapping[str, Any]
) -> None:
    """Write the values to those of the jobs for which the condition still holds."""
    session.execute(sa.select(JobRow.id).where(JobRow.id.in_(ids)).order_by(JobRow.id).with_for_update())
    sql.row_count(session, sa.update(JobRow).where(JobRow.id.in_(ids), condition).values(dict(values)))
