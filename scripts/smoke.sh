#!/bin/sh
# Build the image and run both layouts where a container engine is at hand; elsewhere say so and end well. A base image
# comes from a registry or, where none can be reached, from this machine's package mirror.
set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh

if ! have docker || ! docker info >/dev/null 2>&1; then
    say "smoke: skipped, no container engine is at hand"
    exit 0
fi

BASE=${BASE:-debian:bookworm-slim}
IMAGE=${IMAGE:-millrace:dev}
OWN_BASE=millrace-base:bookworm
STANDIN=millrace-standin

if ! docker image inspect "$BASE" >/dev/null 2>&1 && ! docker pull -q "$BASE" >/dev/null 2>&1; then
    BASE=$OWN_BASE
    docker image inspect "$BASE" >/dev/null 2>&1 || scripts/base_image.sh "$BASE"
    # Nor can the images of PostgreSQL and Redis be had then.
    docker build -q --build-arg BASE="$BASE" -t "$STANDIN" deploy/standins
fi
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' app/__init__.py)
docker build -q --build-arg BASE="$BASE" --build-arg VERSION="$version" -t "$IMAGE" .
if [ "$BASE" = "$OWN_BASE" ] && qdrant=$(.venv/bin/python -m tests.support.shared qdrant); then
    folder=$(mktemp -d)
    cp "$qdrant" "$folder/qdrant"
    docker build -q --build-arg BASE="$BASE" -t "$STANDIN-qdrant" -f deploy/standins/qdrant.Dockerfile "$folder"
    rm -r "$folder"
fi
exec .venv/bin/python -m tests.smoke --image "$IMAGE" "$@"
