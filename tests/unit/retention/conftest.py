"""The spine's own fixtures serve here too: databases emptied before each use, and rows put where a test wants them."""

from tests.unit.jobs.conftest import ledger_databases, spine_env

__all__ = ["ledger_databases", "spine_env"]
