"""Every function that writes a job row. The names here are paths until 0.1, kept for one release."""

from app.jobs.ledger.claims import hold

__all__ = ["hold"]
