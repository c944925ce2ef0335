"""Old path of `app.jobs.children.pipeline`; kept for one release."""

from app.jobs.children.pipeline import Pipeline

__all__ = ["Pipeline"]
