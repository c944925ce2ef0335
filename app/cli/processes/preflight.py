"""Check database and Redis before a process starts."""

from __future__ import annotations

from app.core import logging, redis
from app.core.db import close_database, database
from app.core.errors import Unavailable


def check_services(role: str) -> None:
    """Raise ConfigError for a wrong URL or password; log a service that does not answer yet and go on."""
    logging.setup(role)
    logger = logging.get_logger(__name__)
    for name, ping in (("sql", database().ping), ("redis", redis.ping)):
        try:
            ping()
        except Unavailable as error:
            logger.warning("not_reachable_yet", service=name, reason=error.message)
    close_database()
