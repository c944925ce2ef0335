"""One PostgreSQL database that goes from test to test, each time as fresh as a copy of its template.

A copy costs 0.2 s and its first connections as much again; emptying what a test has filled costs a tenth of that. What
is more than rows (a statement that changes the schema, a setting of the database) has the database replaced.
"""

from __future__ import annotations

import uuid

import psycopg

from tests.support.services import PostgresServer

# More than so much in its tables, dead or alive, and a copy is the quicker way.
MAX_DATABASE_BYTES = 24_000_000

_PREPARE = f"""
CREATE SCHEMA handed_on;
CREATE TABLE handed_on.altered (statement text);
CREATE TABLE handed_on.sequence AS
    SELECT format('%I.%I', schemaname, sequencename) AS name, start_value, last_value FROM pg_sequences;
CREATE TABLE handed_on.seed (name text);

DO $$ DECLARE one regclass; filled boolean; BEGIN
    FOR one IN SELECT oid FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM %s)', one) INTO filled;
        IF filled THEN
            INSERT INTO handed_on.seed VALUES (one::text);
            EXECUTE format('CREATE TABLE handed_on.%I AS TABLE %s', 'seed_' || one, one);
        END IF;
    END LOOP;
END $$;

CREATE FUNCTION handed_on.emptied() RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE one record; filled boolean; BEGIN
    PERFORM pg_terminate_backend(pid, 5000) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid();
    IF EXISTS (SELECT FROM handed_on.altered)
        OR EXISTS (SELECT FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
                   WHERE d.datname = current_database())
        OR (SELECT sum(pg_relation_size(oid)) FROM pg_class
            WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace) > {MAX_DATABASE_BYTES}
    THEN RETURN false; END IF;
    FOR one IN SELECT oid::regclass AS name FROM pg_class
        WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
    LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM %s)', one.name) INTO filled;
        IF filled THEN EXECUTE format('DELETE FROM %s', one.name); END IF;
    END LOOP;
    FOR one IN SELECT name FROM handed_on.seed LOOP
        EXECUTE format('INSERT INTO %s SELECT * FROM handed_on.%I', one.name, 'seed_' || one.name);
    END LOOP;
    PERFORM setval(was.name::regclass, coalesce(was.last_value, was.start_value), was.last_value IS NOT NULL)
        FROM handed_on.sequence was
        WHERE pg_sequence_last_value(was.name::regclass) IS DISTINCT FROM was.last_value;
    RETURN true;
END $$;

CREATE FUNCTION handed_on.alter() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
    INSERT INTO handed_on.altered VALUES (tg_tag);
END $$;
CREATE EVENT TRIGGER handed_on_altered ON ddl_command_end EXECUTE FUNCTION handed_on.alter();
"""


def prepare(server: PostgresServer, template: str) -> None:
    """Add to the template the functions that empty its copies, in a separate schema."""
    with server.connect(template) as connection:
        connection.execute(_PREPARE.encode())


class HandedOn:
    """`fresh()` closes connections to the database and returns its URL, with the schema and its first rows."""

    def __init__(self, server: PostgresServer, template: str) -> None:
        self._server = server
        self._template = template
        self._name = ""
        self._connection: psycopg.Connection[tuple[object, ...]] | None = None

    def fresh(self) -> str:
        if not self._emptied():
            self._replace()
        return self._server.url_of(self._name)

    def _emptied(self) -> bool:
        if self._connection is None:
            return False
        try:
            with self._connection.transaction():
                # No foreign key is asked: everything goes.
                self._connection.execute("SET LOCAL session_replication_role = replica")
                row = self._connection.execute("SELECT handed_on.emptied()").fetchone()
        except psycopg.OperationalError:  # the test has cut this connection, too, or restarted the server
            return False
        return row == (True,)

    def _replace(self) -> None:
        self.close()
        self._name = f"t_{uuid.uuid4().hex[:12]}"
        self._server.create_database(self._name, self._template)
        self._connection = self._server.connect(self._name)

    def close(self) -> None:
        if self._connection is None:
            return
        self._connection.close()
        self._connection = None
        self._server.drop_database(self._name)
