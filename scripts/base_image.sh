#!/bin/sh
# Make a Debian base image from the machine's own package mirror, where no image registry can be reached:
# `scripts/base_image.sh [NAME]` imports millrace-base:bookworm, then `make image BASE=millrace-base:bookworm`.
# The machine's own certificates go in, so that builds behind a proxy that opens TLS work as well.
set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh

NAME=${1:-millrace-base:bookworm}
SUITE=${MILLRACE_BASE_SUITE:-bookworm}
BUNDLE=/etc/ssl/certs/ca-certificates.crt

have docker || give_up "docker is missing: there is nothing to import a base image into."
[ "$(id -u)" = 0 ] || give_up "debootstrap needs root: run this script with sudo."
if ! have debootstrap; then
    may_install && install_packages debootstrap || give_up "debootstrap is missing; install it (apt-get install debootstrap)."
fi

# Where apt on this machine fetches from is where the image's packages can be had, too.
mirror=$(apt-get download --print-uris hostname 2>/dev/null | sed -n "s/^'\(.*\)\/pool\/.*/\1/p" | head -n 1)
[ -n "$mirror" ] || mirror=http://deb.debian.org/debian

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
trap 'exit 130' INT TERM
say "making $NAME from $mirror"
log=$(mktemp)
if ! debootstrap --variant=minbase "$SUITE" "$root" "$mirror" >"$log" 2>&1; then
    tail -n 5 "$log" >&2
    rm -f "$log"
    give_up "debootstrap failed; its last lines are above."
fi
rm -f "$log"
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*

# Both: the package ca-certificates, once installed in the image, makes the bundle anew from the folder.
mkdir -p "$root/usr/local/share/ca-certificates" "$root/etc/ssl/certs"
cp -a /usr/local/share/ca-certificates/. "$root/usr/local/share/ca-certificates/" 2>/dev/null || true
[ ! -e "$BUNDLE" ] || cp -L "$BUNDLE" "$root$BUNDLE"

tar -C "$root" -c . | docker import \
    --change "ENV SSL_CERT_FILE=$BUNDLE PIP_CERT=$BUNDLE" \
    --change 'CMD ["bash"]' - "$NAME" >/dev/null
say "$NAME is ready"
