#!/bin/sh
# Write the next migration: what the models have and the newest schema lacks, compared on an empty SQLite database.
set -eu
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export MILLRACE_DATA_DIR="$folder" MILLRACE_DATABASE_URL="sqlite:///$folder/empty.db"
number=$(printf '%04d' $(($(ls app/migrations/versions | grep -c '^[0-9]') + 1)))
.venv/bin/alembic upgrade head
.venv/bin/alembic revision --autogenerate --rev-id "$number" -m "$1"
