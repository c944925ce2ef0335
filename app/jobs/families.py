"""Old path of `app.jobs.children.children`; kept for one release."""

from app.jobs.child_rules import ALL, ANY, Rule, WaitForChildren
from app.jobs.child_rules import ALWAYS as ANYHOW
from app.jobs.child_rules import max_failures as at_most
from app.jobs.children.children import Child, results, results_page, start

__all__ = ["ALL", "ANY", "ANYHOW", "Child", "Rule", "WaitForChildren", "at_most", "results", "results_page", "start"]
