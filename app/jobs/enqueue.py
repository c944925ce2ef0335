"""Old path of `app.jobs.ledger.enqueue`; kept for one release."""

from app.jobs.ledger.enqueue import enqueue, enqueue_many

__all__ = ["enqueue", "enqueue_many"]
