#!/bin/sh
# Makes the secrets of compose.yaml once, with random passwords, in deploy/docker/secrets. The folder is yours alone; the
# files in it can be read by whoever can enter it, because the containers have users of their own. What exists is kept.
#   deploy/docker/make-secrets.sh
set -eu
cd "$(dirname "$0")"
umask 077
mkdir -p secrets
chmod 0700 secrets
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
setting() { printf '%s=%s\n' "$1" "$(cat "secrets/$2")"; }
for name in redis_password clickhouse_password postgres_password console_token; do
  [ -s "secrets/$name" ] || random >"secrets/$name"
done
{
  setting QMT_REDIS_PASSWORD redis_password
  setting QMT_CLICKHOUSE_PASSWORD clickhouse_password
  setting QMT_CONSOLE_TOKEN console_token
} >secrets/qmt.env
chmod 0444 secrets/*
echo "secrets are in $(pwd)/secrets; the QMT machine needs redis_password as QMT_REDIS_PASSWORD" >&2
