"""Old path of `app.jobs.schedules.store`; kept for one release."""

from app.jobs.schedules.store import Schedule

__all__ = ["Schedule"]
