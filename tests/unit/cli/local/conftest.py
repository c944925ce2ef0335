"""A Pulse database for the tests of the import."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from tests.support.pulse import PulseService
from tests.support.services import PostgresServer


@pytest.fixture
def pulse(shared_postgres: PostgresServer) -> Iterator[PulseService]:
    name = f"pulse_{uuid.uuid4().hex[:8]}"
    yield PulseService(shared_postgres.create_database(name))
    shared_postgres.drop_database(name)
