#!/bin/sh
# Make the secrets of compose.yaml in deploy/secrets; what is there already stays. Any that you bring yourself, put there.
set -eu
cd "$(dirname "$0")"
umask 077
mkdir -p secrets
cd secrets

random() { od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'; }
keep() {
    [ -s "$1" ] || printf '%s\n' "$2" >"$1"
    # The folder lets nobody in; a container's own user, whose id is another one, must read what is mounted from it.
    chmod 644 "$1"
}

keep api_secret "$(random 32)"
keep postgres_password "$(random 24)"
keep database_url "postgresql://millrace:$(cat postgres_password)@postgres:5432/millrace"
keep qdrant_api_key "$(random 24)"
# Qdrant takes its key from the environment alone.
keep qdrant.env "QDRANT__SERVICE__API_KEY=$(cat qdrant_api_key)"
if [ ! -s redis_conf ]; then
    password=$(random 24)
    keep redis_url "redis://:$password@redis:6379/0"
    # The network is no loopback, but closed: see compose.yaml.
    keep redis_conf "requirepass $password
appendonly yes
appendfsync everysec
dir /data
maxmemory-policy noeviction"
fi
