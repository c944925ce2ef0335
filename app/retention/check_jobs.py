"""Run all consistency checks of the ledger and report their findings."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from app.core.db import in_transaction, read
from app.core.logging import get_logger
from app.jobs.events import publish
from app.jobs.ledger import claims
from app.jobs.ledger.claims import Claim
from app.jobs.transition import Moved
from app.jobs.worker.progress import Progress
from app.retention.ledger_check import CHECKS, Repair

EXAMPLES = 5

log = get_logger(__name__)


async def check_ledger(progress: Progress) -> dict[str, Any]:
    """Return findings by the name of the check: the count, the first ids, and if they were repaired. Usually none."""
    findings: dict[str, Any] = {}
    for number, (name, check) in enumerate(CHECKS.items()):
        progress.report(number, len(CHECKS), unit="checks", message=name)
        ids = await read(check.find)
        if not ids:
            continue
        findings[name] = {
            "count": len(ids),
            "examples": [str(row_id) for row_id in ids[:EXAMPLES]],
            "mended": bool(check.repair),
        }
        log.warning("ledger_fault", check=name, **findings[name])
        if check.repair:
            publish.announce(await in_transaction(_repair, progress.claim, check.repair, ids), reason="mended")
    progress.report(len(CHECKS), len(CHECKS))
    return {"checks": len(CHECKS), "found": findings}


def _repair(session: Session, claim: Claim, repair: Repair, ids: list[Any]) -> list[Moved]:
    claims.hold(session, claim)
    return repair(session, ids)
