#!/bin/sh
# As the official images: a first start makes user, password and database; then the server itself is process 1.
set -eu
case "${1:-}" in
    postgres)
        data=${PGDATA:-/var/lib/postgresql/data}
        mkdir -p "$data" /var/run/postgresql
        chown -R postgres:postgres "$data" /var/run/postgresql
        if [ ! -s "$data/PG_VERSION" ]; then
            secret=$(mktemp)
            cat "${POSTGRES_PASSWORD_FILE:?}" >"$secret"
            chown postgres "$secret"
            setpriv --reuid=postgres --regid=postgres --clear-groups \
                initdb -D "$data" -U "$POSTGRES_USER" -A scram-sha-256 --pwfile="$secret" -E UTF8 --locale=C >/dev/null
            rm -f "$secret"
            echo "host all all all scram-sha-256" >>"$data/pg_hba.conf"
            echo "CREATE DATABASE \"$POSTGRES_DB\";" |
                setpriv --reuid=postgres --regid=postgres --clear-groups postgres --single -D "$data" postgres >/dev/null
        fi
        shift
        exec setpriv --reuid=postgres --regid=postgres --clear-groups postgres -D "$data" -c listen_addresses='*' "$@"
        ;;
    *) exec "$@" ;;
esac
