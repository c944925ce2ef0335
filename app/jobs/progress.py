"""Old path of `app.jobs.worker.progress`; kept for one release."""

from app.jobs.worker.progress import Progress

__all__ = ["Progress"]
