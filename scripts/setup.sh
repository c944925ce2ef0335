#!/bin/sh
# Make .venv from uv.lock: `setup.sh run` what the system needs, `setup.sh dev` also what tests and checks need.
# `setup.sh changedetection` makes an environment beside it, for tests alone.
# Safe to run again at any time: it only does what is still to be done.
set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh

UV_VERSION=0.13.9
OLDEST="3.11"

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    for name in ${MILLRACE_PYTHON:-} python3 python3.12 python3.11 python3.13 python3.14; do
        if have "$name" && is_new_enough "$name"; then
            PYTHON=$("$name" -c "import sys; print(sys.executable)")
            return 0
        fi
    done
    return 1
}

need_python() {
    find_python && return 0
    if may_install; then
        for package in python3 python3.11; do
            install_packages "$package" || continue
            find_python && return 0
        done
    fi
    give_up "Python $OLDEST or newer is missing; install it (Debian, Ubuntu: apt-get install python3; macOS: brew install python)."
}

need_venv() {
    "$PYTHON" -c 'import ensurepip, venv' >/dev/null 2>&1 && return 0
    package=python$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv
    if may_install && install_packages "$package"; then
        "$PYTHON" -c 'import ensurepip, venv' >/dev/null 2>&1 && return 0
    fi
    give_up "Python's venv module is missing; install it (apt-get install $package) or put uv on the PATH."
}

need_uv() {
    if have uv; then
        UV=uv
        return 0
    fi
    UV=.uv/bin/uv
    if [ -x "$UV" ] && [ "$("$UV" --version 2>/dev/null | cut -d' ' -f2)" = "$UV_VERSION" ]; then
        return 0
    fi
    need_venv
    say "fetching uv $UV_VERSION into .uv"
    rm -rf .uv
    "$PYTHON" -m venv .uv
    .uv/bin/python -m pip install --quiet --disable-pip-version-check "uv==$UV_VERSION" ||
        give_up "uv could not be fetched from PyPI; check the network, or put uv on the PATH."
}

# Compiled here once: where Python may not write bytecode (images, many CI machines) each process would compile all it
# imports anew, 1.7 of a worker's 3.5 s.
sync() {
    env -u VIRTUAL_ENV UV_COMPILE_BYTECODE=1 UV_PYTHON_DOWNLOADS=never UV_PROJECT_ENVIRONMENT=.venv \
        "$UV" sync --quiet --frozen --inexact --python "$PYTHON" "$@" ||
        give_up "the packages of uv.lock could not be installed; what uv says above tells why."
}

# A program of its own with some 170 packages, which must not meet ours; what is there already is left alone.
changedetection() {
    place=.services/changedetection
    list=scripts/changedetection.txt
    cmp -s "$list" "$place/installed.txt" && return 0
    say "fetching changedetection.io into $place (some 520 MB)"
    rm -rf "$place"
    "$UV" venv --quiet --no-project --python "$PYTHON" "$place" &&
        "$UV" pip install --quiet --no-deps --python "$place/bin/python" -r "$list" ||
        give_up "changedetection.io could not be installed; what uv says above tells why."
    cp "$list" "$place/installed.txt"
}

mode=${1:-run}
need_python
need_uv
case "$mode" in
    run) sync --no-dev ;;
    redis) sync --no-dev --extra desk ;;
    dev) sync --group dev ;;
    bench) sync --group dev --group bench ;;
    changedetection) changedetection ;;
    *) give_up "setup.sh knows run, redis, dev, bench and changedetection, not '$mode'." ;;
esac
