#!/bin/sh
# The whole suite for CI. Up to five tests that failed beside the others are run once more, alone: a fault fails again,
# a machine that was too busy for a moment does not. What only passed alone is named, so that it gets mended.
set -u
cd "$(dirname "$0")/.."
BIN=.venv/bin
rm -rf .pytest_cache/v/cache/lastfailed
"$BIN"/pytest -n "${JOBS:-auto}" --dist worksteal "$@"
code=$?
[ "$code" -eq 1 ] || exit "$code"
failed=$("$BIN"/python -c 'import json; print("\n".join(json.load(open(".pytest_cache/v/cache/lastfailed"))))')
if [ "$(printf '%s\n' "$failed" | wc -l)" -gt 5 ]; then exit 1; fi
printf '\nfailed beside the others, now alone:\n%s\n\n' "$failed"
"$BIN"/pytest -n 0 --last-failed --last-failed-no-failures none "$@" || exit 1
printf '\nunsteady, passed only alone:\n%s\n' "$failed"
