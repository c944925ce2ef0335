"""Counts of children in their parent's row: all, open, failed. Updated in the transaction that moves a child.

Rows are locked in the order of their ids. A parent is older than its children, so its id comes first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import sql
from app.jobs.admission import push
from app.jobs.child_rules import Wait
from app.jobs.definition import definition
from app.jobs.ledger.parent_progress import report_after_commit
from app.jobs.states import ENDED
from app.jobs.transition import MOVED, Moved, typed

# The stage of a parent's progress that its children fill.
STAGE = "children"


def lock(session: Session, ids: sa.Select[Any] | Sequence[str]) -> list[str]:
    """Lock these jobs and their parents; return the ids of the jobs. SQLite has one writer and needs no locks."""
    job_ids = list(ids) if isinstance(ids, Sequence) else list(session.scalars(ids))
    if job_ids and sql.is_postgres(session):
        session.execute(_LOCK, {"ids": sql.ids("postgresql", job_ids)})
    return job_ids


_LOCK = sa.text(
    """
    SELECT id FROM job WHERE id = ANY(ARRAY(
        SELECT unnest(CAST(:ids AS uuid[]))
        UNION SELECT parent_id FROM job WHERE id = ANY(CAST(:ids AS uuid[])) AND parent_id IS NOT NULL))
    ORDER BY id FOR UPDATE"""
)


def _decided(rule: str, limit: str, open_now: str, failed_now: str) -> str:
    """SQL that is true if no further end can change what the rule says of the children started since the last wait."""
    failed = f"{failed_now} - settled_failed"
    succeeded = f"(children - ({open_now}) - ({failed_now})) - (settled_children - settled_failed)"
    return f"(CASE WHEN {rule} = 'any' THEN {succeeded} > {limit} ELSE {failed} > {limit} END)"


def fulfilled() -> str:
    """SQL that is true if a parent without open children fulfils its rule."""
    decided = _decided("family_rule", "family_limit", "open_children", "failed_children")
    return f"(CASE WHEN family_rule = 'any' THEN {decided} ELSE NOT ({decided}) END)"


def _progress(dialect: str, progress: str, open_now: str) -> str:
    """SQL for the parent's progress with the ends of its children; it rises from `from` to `till` and never falls."""
    value = "CAST({} ->> '{}' AS numeric)"
    first, last, now = (f"COALESCE({value.format('p.v', name)}, 0)" for name in ("from", "till", "percent"))
    total = f"COALESCE({value.format('p.v', 'planned')}, children)"
    ended = f"(children - ({open_now}))"
    reached = f"{first} + ({last} - {first}) * CASE WHEN {total} > 0 THEN {ended} * 1.0 / {total} ELSE 1 END"
    percent = f"{sql.greatest(dialect)}({now}, ROUND({reached}, 1))"
    if dialect == "sqlite":
        new = f"json_set(p.v, '$.percent', {percent}, '$.done', {ended}, '$.total', {total}, '$.unit', 'children')"
    else:
        new = f"p.v || jsonb_build_object('percent', {percent}, 'done', {ended}, 'total', {total}, 'unit', 'children')"
    return f"(SELECT {new} FROM (SELECT {progress} AS v) AS p)"


_PARENT = MOVED + ", cut_children"
_TALLY = {"key_id": "id", "ended": "int", "failed": "int"}
_WAIT = {"key_id": "id", "new_rule": "text", "new_limit": "int", "bar": "json"}


@lru_cache
def _count_sql(dialect: str) -> sa.TextualSelect:
    open_now, failed_now = "open_children - ended", "failed_children + failed"
    decided = _decided("family_rule", "family_limit", open_now, failed_now)
    before = _decided("family_rule", "family_limit", "open_children", "failed_children")
    cut = f"{open_now} > 0 AND {decided} AND NOT {before}"
    return typed(
        f"""
        UPDATE job SET open_children = {open_now}, failed_children = {failed_now},
               cut_children = CASE WHEN state = 'waiting' THEN cut_children OR ({cut}) ELSE cut_children END,
               progress = CASE WHEN state = 'waiting' THEN {_progress(dialect, "progress", open_now)} ELSE progress END
        FROM {sql.rows(dialect, _TALLY)} WHERE {sql.joined_on_id(dialect)}
        RETURNING {_PARENT}""",
        _PARENT,
    )


def count(session: Session, moved: Iterable[Moved]) -> None:
    """Count the ended jobs in their parents. Wakes the relay to cancel children of jobs that did not succeed."""
    tally: dict[str, list[int]] = {}
    for move in moved:
        if move.state not in ENDED:
            continue
        if move.parent_id is not None:
            counts = tally.setdefault(move.parent_id, [0, 0])
            counts[0] += 1
            counts[1] += move.state != "succeeded"
        if move.open_children and move.state != "succeeded":
            push.wake_relay_after_commit(session)
    if tally:
        _tally(session, tally)


def uncount(session: Session, parent_id: str, reopened: int) -> None:
    """Count failed children of the parent as open again."""
    _tally(session, {parent_id: [-reopened, -reopened]})


def _tally(session: Session, tally: Mapping[str, Sequence[int]]) -> None:
    dialect = sql.dialect_of(session)
    rows = [{"key_id": parent, "ended": ended, "failed": failed} for parent, (ended, failed) in sorted(tally.items())]
    parameters = {"rows": sql.encode_rows(dialect, rows), "ids": sql.ids(dialect, tally)}
    _after_count(session, session.execute(_count_sql(dialect), parameters).all())


@lru_cache
def _wait_sql(dialect: str) -> sa.TextualSelect:
    decided = _decided("new_rule", "new_limit", "open_children", "failed_children")
    if dialect == "sqlite":
        merged = "json_patch(COALESCE(progress, '{}'), bar)"
        begun = (
            f"(SELECT json_set(v, '$.from', COALESCE(v ->> 'from', v ->> 'percent', 0)) FROM (SELECT {merged} AS v))"
        )
    else:
        merged = "COALESCE(progress, CAST('{}' AS jsonb)) || bar"
        begun = (
            "(SELECT m.v || jsonb_build_object('from', COALESCE(m.v -> 'from', m.v -> 'percent', to_jsonb(0))) "
            f"FROM (SELECT {merged} AS v) AS m)"
        )
    return typed(
        f"""
        UPDATE job SET family_rule = new_rule, family_limit = new_limit,
               cut_children = open_children > 0 AND {decided},
               progress = {_progress(dialect, begun, "open_children")}
        FROM {sql.rows(dialect, _WAIT)} WHERE {sql.joined_on_id(dialect)} AND state = 'waiting'
        RETURNING {_PARENT}""",
        _PARENT,
    )


def begin_waiting(session: Session, moved: list[Moved], waits: Mapping[str, tuple[str, Wait]]) -> list[Moved]:
    """Write the rules of jobs that just moved to waiting; return all moves, these with their new progress.

    `waits` maps a job's id to its kind and wait.
    """
    dialect = sql.dialect_of(session)
    rows = [_wait_row(move.id, *waits[move.id]) for move in moved if move.state == "waiting"]
    if not rows:
        return moved
    ids = sql.ids(dialect, [row["key_id"] for row in rows])
    parameters = {"rows": sql.encode_rows(dialect, rows), "ids": ids}
    parents = session.execute(_wait_sql(dialect), parameters).all()
    _after_count(session, parents)
    waiting = {row.id: Moved(*row[:-1]) for row in parents}
    return [waiting.get(move.id, move) for move in moved]


def _wait_row(job_id: str, kind: str, wait: Wait) -> dict[str, Any]:
    known_kind = definition(kind)
    stages = dict(known_kind.stages) if known_kind else {}
    bar: dict[str, Any] = {"till": 100.0} if not stages else {}
    if STAGE in stages:
        names, everything = list(stages), sum(stages.values()) or 1
        before = sum(stages[name] for name in names[: names.index(STAGE)])
        bar = {"stage": STAGE, "from": 100 * before / everything, "till": 100 * (before + stages[STAGE]) / everything}
    if wait.planned is not None:
        bar["planned"] = wait.planned
    return {"key_id": job_id, "new_rule": wait.rule.name, "new_limit": wait.rule.limit, "bar": bar}


def _after_count(session: Session, parents: Iterable[Any]) -> None:
    """Wake the relay for parents that may go on; report the progress of the others after the commit."""
    for parent in parents:
        if parent.cut_children or (parent.state == "waiting" and not parent.open_children):
            push.wake_relay_after_commit(session)
        elif parent.state == "waiting":
            report_after_commit(session, Moved(*parent[:-1]))
