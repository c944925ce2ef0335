"""Whether database and Redis could ever answer with these settings."""

from __future__ import annotations

from app.core import logging, redis
from app.core.db import close_database, database
from app.core.errors import Unavailable


def refuse_what_never_works(role: str) -> None:
    """Raises ConfigError for a wrong URL or password; what merely does not answer yet is logged and waited for."""
    logging.setup(role)
    logger = logging.get_logger(__name__)
    for name, ping in (("sql", database().ping), ("redis", redis.ping)):
        try:
            ping()
        except Unavailable as error:
            logger.warning("not_reachable_yet", service=name, reason=error.message)
    close_database()
