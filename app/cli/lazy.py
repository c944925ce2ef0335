"""Modules that commands use, each imported at its first use.

HTTP, settings, SQL and rich cost half a second. `millrace --help` imports every command, so it must load none of them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__all__ = [
    "backups", "checks", "documents", "follow_jobs", "http", "model_download", "output", "profiles", "pulse",
    "run_container", "run_local", "schema", "search_results", "setting_list", "wait_for_jobs",
]  # fmt: skip


class LazyModule:
    """Stand-in for a module; the first attribute that is read imports it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)


if TYPE_CHECKING:
    from app.cli import output
    from app.cli.client import documents, follow_jobs, http, profiles, search_results, wait_for_jobs
    from app.cli.local import backups, checks, model_download, pulse, schema, setting_list
    from app.cli.processes import run_container, run_local
else:
    output = LazyModule("app.cli.output")
    documents = LazyModule("app.cli.client.documents")
    follow_jobs = LazyModule("app.cli.client.follow_jobs")
    http = LazyModule("app.cli.client.http")
    profiles = LazyModule("app.cli.client.profiles")
    search_results = LazyModule("app.cli.client.search_results")
    wait_for_jobs = LazyModule("app.cli.client.wait_for_jobs")
    backups = LazyModule("app.cli.local.backups")
    checks = LazyModule("app.cli.local.checks")
    model_download = LazyModule("app.cli.local.model_download")
    pulse = LazyModule("app.cli.local.pulse")
    schema = LazyModule("app.cli.local.schema")
    setting_list = LazyModule("app.cli.local.setting_list")
    run_container = LazyModule("app.cli.processes.run_container")
    run_local = LazyModule("app.cli.processes.run_local")
