# Words shared by the scripts beside it; read with `.`, so plain POSIX sh.

say() { printf '%s\n' "millrace: $*" >&2; }

# One sentence and a way out: what is missing, and how to bring it.
give_up() {
    say "$*"
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# The prefix with which we may install packages: empty as root, "sudo -n" where no password is asked.
may_install() {
    have apt-get || return 1
    if [ "$(id -u)" = 0 ]; then
        SUDO=""
    elif have sudo && sudo -n true 2>/dev/null; then
        SUDO="sudo -n"
    else
        return 1
    fi
}

# A package's start script must not start a server of its own on this machine: Debian asks this file first.
POLICY=/usr/sbin/policy-rc.d
policy_made=""
forbid_services() {
    [ -e "$POLICY" ] && return 0
    printf '#!/bin/sh\nexit 101\n' | $SUDO tee "$POLICY" >/dev/null
    $SUDO chmod 755 "$POLICY"
    policy_made=1
    trap allow_services EXIT
    trap 'exit 130' INT TERM
}
allow_services() {
    [ -z "$policy_made" ] || $SUDO rm -f "$POLICY"
    policy_made=""
}

apt_quiet() {
    log=$(mktemp)
    if $SUDO env DEBIAN_FRONTEND=noninteractive apt-get -y -qq -o DPkg::Lock::Timeout=120 "$@" >"$log" 2>&1; then
        rm -f "$log"
        return 0
    fi
    tail -n 5 "$log" >&2
    rm -f "$log"
    return 1
}

# Install packages, with a fresh package list only where the machine knows none of them.
install_packages() {
    say "installing $* (apt-get)"
    forbid_services
    for package in "$@"; do
        if [ -z "$(apt-cache policy "$package" 2>/dev/null | sed -n 's/^ *Candidate: *//p' | grep -v '(none)')" ]; then
            apt_quiet update || true
            break
        fi
    done
    status=0
    if ! apt_quiet install --no-install-recommends "$@"; then
        # The list may name versions that the mirror no longer has.
        { apt_quiet update && apt_quiet install --no-install-recommends "$@"; } || status=1
    fi
    allow_services
    return $status
}
