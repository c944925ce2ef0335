"""Old path of `app.jobs.children.children`; kept for one release."""

from app.jobs.children.children import Child, results, results_page, start
from app.jobs.ledger.child_counts import ALL, ANY, ANYHOW, Rule, WaitForChildren, at_most

__all__ = ["ALL", "ANY", "ANYHOW", "Child", "Rule", "WaitForChildren", "at_most", "results", "results_page", "start"]
