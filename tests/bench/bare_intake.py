"""The peer of row 16: a few lines that keep one row of what comes and answer, as anybody would write them first."""

from __future__ import annotations

import os
from typing import Any

import sqlalchemy as sa
from fastapi import Body, FastAPI

TABLE = sa.Table(
    "bare_intake", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("body", sa.JSON)
)
engine = sa.create_engine(os.environ["BARE_DATABASE_URL"])
if engine.dialect.name == "sqlite":

    @sa.event.listens_for(engine, "connect")
    def set_up(connection: Any, _: Any) -> None:
        connection.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=normal")


TABLE.metadata.create_all(engine)
app = FastAPI()


@app.post("/", status_code=202)
def take(body: dict[str, Any] = Body()) -> dict[str, str]:
    with engine.begin() as connection:
        connection.execute(sa.insert(TABLE).values(body=body))
    return {"status": "queued"}
