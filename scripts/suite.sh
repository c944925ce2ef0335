#!/bin/sh
# The whole suite for CI. Up to five failed tests run once more, alone, and are named: each of them is a fault of the
# test or of the product that is still to be fixed.
set -u
cd "$(dirname "$0")/.."
BIN=.venv/bin
rm -rf .pytest_cache/v/cache/lastfailed
"$BIN"/pytest -n "${JOBS:-auto}" --dist worksteal "$@"
code=$?
[ "$code" -eq 1 ] || exit "$code"
failed=$("$BIN"/python -c 'import json; print("\n".join(json.load(open(".pytest_cache/v/cache/lastfailed"))))')
if [ "$(printf '%s\n' "$failed" | wc -l)" -gt 5 ]; then exit 1; fi
printf '\nfailed in the suite, now alone:\n%s\n\n' "$failed"
"$BIN"/pytest -n 0 --last-failed --last-failed-no-failures none "$@" || exit 1
printf '\nunsteady, passed only alone:\n%s\n' "$failed"
