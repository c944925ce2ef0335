"""The ledger alone writes job rows: no other module may insert, update or delete them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from app.jobs.models import JobRow
from tests.support.stack import REPOSITORY

LEDGER = REPOSITORY / "app" / "jobs" / "ledger"
# Attributes of other tables' rows, too.
SHARED = {
    "id", "tenant", "kind", "queue", "state", "result", "document_id", "created_at", "started_at", "finished_at",
    "payload", "priority", "request_id", "children", "progress", "error_message", "parent_id",
}  # fmt: skip
COLUMNS = {column.key for column in JobRow.__table__.columns} - SHARED
RAW = re.compile(r"\b(INSERT\s+INTO|UPDATE|DELETE\s+FROM)\s+job\b")


def sources() -> list[Path]:
    folders = (REPOSITORY / "app", REPOSITORY / "actors")
    files = [path for folder in folders for path in folder.rglob("*.py")]
    return [path for path in files if LEDGER not in path.parents and "migrations" not in path.parts]


def writes(source: str) -> list[str]:
    """Statements of a module that write a job row."""
    tree = ast.parse(source)
    rows = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id in ("JobRow", "JOB")]
    statements = [ast.unparse(node) for node in ast.walk(tree) if _is_write(node)]
    if rows:
        statements += [ast.unparse(node) for node in ast.walk(tree) if _sets_column(node)]
    return statements + RAW.findall(source)


def _is_write(node: ast.AST) -> bool:
    """sa.insert(JOB), sa.update(JobRow), sa.delete(JobRow), JOB.insert(), session.add(JobRow(...))."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    name, first = node.func.attr, node.args[0] if node.args else None
    if name in ("insert", "update", "delete"):
        subject = first if first is not None else node.func.value
        return isinstance(subject, ast.Name) and subject.id in ("JobRow", "JOB")
    made = isinstance(first, ast.Call) and isinstance(first.func, ast.Name) and first.func.id == "JobRow"
    return name in ("add", "merge") and made


def _sets_column(node: ast.AST) -> bool:
    """row.admitted_at = ..., on anything but self, in a module that knows job rows."""
    targets = node.targets if isinstance(node, ast.Assign) else []
    flat = [part for target in targets for part in (target.elts if isinstance(target, ast.Tuple) else [target])]
    return any(
        isinstance(target, ast.Attribute)
        and target.attr in COLUMNS
        and not (isinstance(target.value, ast.Name) and target.value.id == "self")
        for target in flat
    )


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_only_the_ledger_writes_job_rows(path: Path) -> None:
    assert writes(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "session.execute(sa.update(JobRow).values(state='queued'))",
        "session.execute(sa.insert(JOB), rows)",
        "JOB.delete()",
        "session.add(JobRow(id=1))",
        "row: JobRow = get()\nrow.admitted_at = None",
        "row: JobRow = get()\nrow.state, row.due_at = 'queued', now",
        "sa.text('UPDATE job SET state = 1')",
        "sa.text('DELETE  FROM job')",
    ],
)
def test_the_check_sees_each_kind_of_write(source: str) -> None:
    assert writes(source) != []
