"""Old path of `app.jobs.worker.call_rates`; kept for one release."""

from app.jobs.worker.call_rates import reserve, take

__all__ = ["reserve", "take"]
