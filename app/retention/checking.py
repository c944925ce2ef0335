"""The ledger looked through, check by check, with a report."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from app.core.db import in_transaction, read
from app.core.logging import get_logger
from app.jobs.events import publish
from app.jobs.inspect.selfcheck import CHECKS, Mend
from app.jobs.ledger import claims
from app.jobs.ledger.claims import Claim, Moved
from app.jobs.worker.progress import Progress

EXAMPLES = 5

log = get_logger(__name__)


async def check_ledger(progress: Progress) -> dict[str, Any]:
    """What was found, by the name of its check: how many, the first ids, whether it was mended. As a rule, nothing."""
    found: dict[str, Any] = {}
    for number, (name, check) in enumerate(CHECKS.items()):
        progress.report(number, len(CHECKS), unit="checks", message=name)
        ids = await read(check.find)
        if not ids:
            continue
        found[name] = {"count": len(ids), "examples": [str(one) for one in ids[:EXAMPLES]], "mended": bool(check.mend)}
        log.warning("ledger_fault", check=name, **found[name])
        if check.mend:
            publish.announce(await in_transaction(_mend, progress.claim, check.mend, ids), reason="mended")
    progress.report(len(CHECKS), len(CHECKS))
    return {"checks": len(CHECKS), "found": found}


def _mend(session: Session, claim: Claim, mend: Mend, ids: list[Any]) -> list[Moved]:
    claims.hold(session, claim)
    return mend(session, ids)
