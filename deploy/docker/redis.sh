#!/bin/sh
# Starts Redis with the password of a secret. The file of users is made in memory and holds its SHA-256 only.
set -eu
hash=$(head -n 1 /run/secrets/redis_password | tr -d '\n' | sha256sum | cut -d' ' -f1)
umask 077
printf 'user default on #%s ~* &* +@all\n' "$hash" >/run/redis/users.acl
exec redis-server --dir /data --aclfile /run/redis/users.acl --appendonly yes --appendfsync everysec --save "" \
  --maxmemory "${REDIS_MAXMEMORY:-2gb}" --maxmemory-policy noeviction --proto-max-bulk-len 64mb --tcp-keepalive 60
