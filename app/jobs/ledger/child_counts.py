"""How many children a job has, how many are open and how many failed: counted where they move, in the same transaction.

Rows are locked in the order of their ids, parents with their children: a parent was made before them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock, sql
from app.core.db import after_commit
from app.core.errors import AppError, ConfigError, Unavailable
from app.core.logging import get_logger
from app.jobs.admission import push
from app.jobs.definition import definition
from app.jobs.events import publish
from app.jobs.events.publish import JobEvent
from app.jobs.models import JOB
from app.jobs.states import ENDED
from app.jobs.transition import MOVED, Moved, typed

# A parent that a person tries again: its children that did not succeed are started again with it.
AGAIN = "again"
# The stage of a parent that its children's share of the bar is taken from.
STAGE = "children"
TELL_GAP_S = 0.1

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Rule:
    """When a family has done its work: `any` after more than `limit` successes, all others unless more have failed."""

    name: str
    limit: int


ALL = Rule("all", 0)
ANY = Rule("any", 0)
ANYHOW = Rule("anyhow", 2**31 - 1)


def at_most(failed: int) -> Rule:
    """The family holds while no more than so many of its children failed or were cancelled."""
    return Rule(f"at_most:{failed}", failed)


@dataclass(frozen=True, slots=True)
class Wait:
    """What a parent waits under; `planned` is how many children it will have in all, where more will follow."""

    rule: Rule
    planned: int | None = None


class WaitForChildren(AppError):
    """Raised by a parent that has started its children: it leaves its worker, uncounted, until the rule has decided."""

    code = "waits"

    def __init__(self, rule: Rule = ALL, *, planned: int | None = None) -> None:
        super().__init__(f"waits for its children ({rule.name})")
        self.wait = Wait(rule, planned)


def lock(session: Session, ids: sa.Select[Any] | Sequence[str]) -> list[str]:
    """Lock these jobs and their parents; the ids. SQLite has one writer and no need of it."""
    found = list(ids) if isinstance(ids, Sequence) else list(session.scalars(ids))
    if found and sql.dialect_of(session) == "postgresql":
        session.execute(_LOCK, {"ids": sql.ids("postgresql", found)})
    return found


_LOCK = sa.text(
    """
    SELECT id FROM job WHERE id = ANY(ARRAY(
        SELECT unnest(CAST(:ids AS uuid[]))
        UNION SELECT parent_id FROM job WHERE id = ANY(CAST(:ids AS uuid[])) AND parent_id IS NOT NULL))
    ORDER BY id FOR UPDATE"""
)

# Parents


def _decided(rule: str, limit: str, open_now: str, failed_now: str) -> str:
    """Whether the rule needs no more ends; of all children since the family before."""
    failed = f"{failed_now} - settled_failed"
    succeeded = f"(children - ({open_now}) - ({failed_now})) - (settled_children - settled_failed)"
    return f"(CASE WHEN {rule} = 'any' THEN {succeeded} > {limit} ELSE {failed} > {limit} END)"


def held() -> str:
    """Whether a family without an open child has kept its rule."""
    decided = _decided("family_rule", "family_limit", "open_children", "failed_children")
    return f"(CASE WHEN family_rule = 'any' THEN {decided} ELSE NOT ({decided}) END)"


def _bar(dialect: str, progress: str, open_now: str) -> str:
    """The parent's progress with its children's ends in it. It goes from `from` to `till` and never falls."""
    value = "CAST({} ->> '{}' AS numeric)"
    first, last, now = (f"COALESCE({value.format('p.v', name)}, 0)" for name in ("from", "till", "percent"))
    total = f"COALESCE({value.format('p.v', 'planned')}, children)"
    ended = f"(children - ({open_now}))"
    reached = f"{first} + ({last} - {first}) * CASE WHEN {total} > 0 THEN {ended} * 1.0 / {total} ELSE 1 END"
    greatest = "max" if dialect == "sqlite" else "GREATEST"
    percent = f"{greatest}({now}, ROUND({reached}, 1))"
    if dialect == "sqlite":
        new = f"json_set(p.v, '$.percent', {percent}, '$.done', {ended}, '$.total', {total}, '$.unit', 'children')"
    else:
        new = f"p.v || jsonb_build_object('percent', {percent}, 'done', {ended}, 'total', {total}, 'unit', 'children')"
    return f"(SELECT {new} FROM (SELECT {progress} AS v) AS p)"


_PARENT = MOVED + ", cut_children"
_TALLY = {"key_id": "id", "ended": "int", "failed": "int"}
_WAIT = {"key_id": "id", "new_rule": "text", "new_limit": "int", "bar": "json"}


def _rows(dialect: str) -> str:
    return f"job.id = key_id AND job.id {sql.among(dialect)}" if dialect == "postgresql" else "job.id = key_id"


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
               progress = CASE WHEN state = 'waiting' THEN {_bar(dialect, "progress", open_now)} ELSE progress END
        FROM {sql.rows(dialect, _TALLY)} WHERE {_rows(dialect)}
        RETURNING {_PARENT}""",
        _PARENT,
    )


def count(session: Session, moved: Iterable[Moved]) -> None:
    """Count those of these that ended in their parents, and let the children of those that ended badly follow."""
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
    """Count failed children of this parent as open again."""
    _tally(session, {parent_id: [-reopened, -reopened]})


def _tally(session: Session, tally: Mapping[str, Sequence[int]]) -> None:
    dialect = sql.dialect_of(session)
    rows = [{"key_id": parent, "ended": ended, "failed": failed} for parent, (ended, failed) in sorted(tally.items())]
    parameters = {"rows": sql.encode_rows(dialect, rows), "ids": sql.ids(dialect, tally)}
    _look(session, session.execute(_count_sql(dialect), parameters).all())


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
               progress = {_bar(dialect, begun, "open_children")}
        FROM {sql.rows(dialect, _WAIT)} WHERE {_rows(dialect)} AND state = 'waiting'
        RETURNING {_PARENT}""",
        _PARENT,
    )


def begin_waiting(session: Session, moved: list[Moved], waits: Mapping[str, tuple[str, Wait]]) -> list[Moved]:
    """Set the rules of those that just moved to waiting, by kind and wait; all the moves, with their bars."""
    dialect = sql.dialect_of(session)
    rows = [_wait_row(move.id, *waits[move.id]) for move in moved if move.state == "waiting"]
    if not rows:
        return moved
    ids = sql.ids(dialect, [row["key_id"] for row in rows])
    parameters = {"rows": sql.encode_rows(dialect, rows), "ids": ids}
    found = session.execute(_wait_sql(dialect), parameters).all()
    _look(session, found)
    waiting = {row.id: Moved(*row[:-1]) for row in found}
    return [waiting.get(move.id, move) for move in moved]


def _wait_row(job_id: str, kind: str, wait: Wait) -> dict[str, Any]:
    known = definition(kind)
    stages = dict(known.stages) if known else {}
    bar: dict[str, Any] = {"till": 100.0} if not stages else {}
    if STAGE in stages:
        names, everything = list(stages), sum(stages.values()) or 1
        before = sum(stages[name] for name in names[: names.index(STAGE)])
        bar = {"stage": STAGE, "from": 100 * before / everything, "till": 100 * (before + stages[STAGE]) / everything}
    if wait.planned is not None:
        bar["planned"] = wait.planned
    return {"key_id": job_id, "new_rule": wait.rule.name, "new_limit": wait.rule.limit, "bar": bar}


def as_new() -> dict[str, Any]:
    """The columns of a failed or cancelled job that is queued again as if it had never run."""
    empty = ("admitted_at", "discarded_at", "finished_at", "cancel_requested_at", "expires_at", "result")
    errors = ("error_type", "error_code", "error_message", "fingerprint")
    counts = {"settled_children": 0, "settled_failed": 0, "cut_children": False, "family_limit": None}
    rule = sa.case((JOB.c.children > 0, AGAIN), else_=sa.null())
    values = {"state": "queued", "tries": 0, "crashes": 0, "due_at": clock.now(), "family_rule": rule}
    return values | counts | dict.fromkeys((*empty, *errors))


# Told after the commit


def _look(session: Session, parents: Iterable[Any]) -> None:
    """Wake who moves the parents that may go on, and tell how far the others are."""
    for parent in parents:
        if parent.cut_children or (parent.state == "waiting" and not parent.open_children):
            push.wake_relay_after_commit(session)
        elif parent.state == "waiting":
            told: _Told = after_commit(session, "bars", _Told)
            told.parents[parent.id] = Moved(*parent[:-1])


class _Told:
    def __init__(self) -> None:
        self.parents: dict[str, Moved] = {}

    def __call__(self) -> None:
        bars.tell(self.parents)


class Bars:
    """Parents' progress, told at most ten times a second and process, the last of it always."""

    def __init__(self) -> None:
        self._untold: dict[str, Moved] = {}
        self._lock = threading.Lock()

    def tell(self, parents: Mapping[str, Moved]) -> None:
        with self._lock:
            begin = not self._untold
            self._untold |= parents
        if begin:
            timer = threading.Timer(TELL_GAP_S, self._tell)
            timer.daemon = True
            timer.start()

    def _tell(self) -> None:
        with self._lock:
            untold, self._untold = self._untold, {}
        try:
            publish.publish([_event(parent) for parent in untold.values()])
        except (Unavailable, ConfigError) as error:
            log.info("progress_not_published", reason=error.message)


def _event(parent: Moved) -> JobEvent:
    return publish.event_of_move(parent)._replace(event="progress")


bars = Bars()
