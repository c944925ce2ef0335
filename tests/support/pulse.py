"""The older service's database as its contract describes it: the schema, and rows as they are found there."""

from __future__ import annotations

import json
from typing import Any

import psycopg
from psycopg import sql

_TABLES = """
CREATE SCHEMA webhook;
CREATE TABLE webhook.crawl_sessions (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), job_id varchar(255) UNIQUE NOT NULL, base_url varchar(500),
    operation_type varchar(50), started_at timestamptz, completed_at timestamptz, initiated_at timestamptz,
    expires_at timestamptz, status varchar(50), success boolean, total_pages integer DEFAULT 0,
    pages_indexed integer DEFAULT 0, pages_failed integer DEFAULT 0, duration_ms double precision,
    e2e_duration_ms double precision, auto_index boolean DEFAULT true, error_message text, extra_metadata jsonb,
    created_at timestamptz DEFAULT now()
);
CREATE TABLE webhook.scraped_content (
    id bigserial PRIMARY KEY, crawl_session_id varchar(255), url text NOT NULL, source_url text,
    content_source varchar(50) NOT NULL DEFAULT 'firecrawl_crawl', markdown text, html text, links json,
    screenshot text, metadata json DEFAULT '{}', content_hash varchar(64), scraped_at timestamp,
    created_at timestamptz DEFAULT '2025-03-01T10:00:00Z'
);
CREATE TABLE webhook.change_events (
    id serial PRIMARY KEY, watch_id varchar(255), watch_url text, detected_at timestamptz, diff_summary text,
    snapshot_url text, rescrape_job_id varchar(255), rescrape_status varchar(50), indexed_at timestamptz, metadata json
);
"""


class PulseService:
    """A Pulse database at `url`; `add` writes a row and returns its id."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._dsn = url.replace("+psycopg", "")
        self.run(_TABLES)

    def run(self, statement: str) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            connection.execute(statement.encode())

    def add(self, table: str, **values: Any) -> Any:
        columns = {name: json.dumps(v) if isinstance(v, (dict, list)) else v for name, v in values.items()}
        query = sql.SQL("INSERT INTO webhook.{} ({}) VALUES ({}) RETURNING {}").format(
            sql.Identifier(table),
            sql.SQL(", ").join(map(sql.Identifier, columns)),
            sql.SQL(", ").join(sql.Placeholder() * len(columns)),
            sql.Identifier("id"),
        )
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            row = connection.execute(query, list(columns.values())).fetchone()
        assert row is not None
        return row[0]

    def page(self, url: str, markdown: str | None, **values: Any) -> int:
        return int(self.add("scraped_content", url=url, markdown=markdown, **values))
