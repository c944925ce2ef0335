"""Fixtures of the job tests: emptied databases and rows in any state."""

from tests.unit.jobs.conftest import ledger_databases, spine_env

__all__ = ["ledger_databases", "spine_env"]
