"""Contents of a worker: the broker first, then every module with actors. `dramatiq actors.main -p 1`."""
# ruff: noqa: E402  garbage collection is off during the imports

from __future__ import annotations

import gc
import importlib
import sys

gc.disable()  # imports make no garbage, and a tenth of their time would be collection

from actors.lifespan import EXIT_CONFIG, Lifespan
from actors.running import add_actor
from app.core import logging
from app.core.errors import ConfigError
from app.core.process import hide_memory
from app.core.settings import get_settings
from app.core.telemetry import setup as telemetry
from app.jobs import functions
from app.jobs.worker.broker import install

ROOMS = (
    "actors.deliveries",
    "actors.documents",
    "actors.jobs",
    "actors.pipelines",
    "actors.retention",
    "actors.search",
    "actors.sources",
)

try:
    settings = get_settings()
    hide_memory()
    logging.setup("worker")
    telemetry.start("worker")
    broker = install([Lifespan()])
    for module in ROOMS:
        importlib.import_module(module)
    functions.import_modules(settings.modules)
    for declared in functions.list_declared():
        add_actor(broker, declared)
except ConfigError as error:
    sys.stderr.write(f"millrace worker: {error.message}\n")
    sys.exit(EXIT_CONFIG)

gc.freeze()  # imported objects live to the end of the process
gc.enable()
