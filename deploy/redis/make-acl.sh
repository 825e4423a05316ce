#!/bin/sh
# Writes the ACL file of a Redis server (7.0 or later: a user may read a key and not write it) from users.acl: passwords
# come from the environment and only their SHA-256 reaches the file.
#
#   ADMIN_PASSWORD=… FEED_PASSWORD=… WAREHOUSE_PASSWORD=… DAGSTER_PASSWORD=… CLIENT_PASSWORD=… \
#     TICKS_PASSWORD=… ./make-acl.sh > users.acl
#   redis.conf:  aclfile /etc/redis/users.acl
set -eu
here=$(cd "$(dirname "$0")" && pwd)
script=""
for role in ADMIN FEED WAREHOUSE DAGSTER CLIENT TICKS; do
  eval "password=\${${role}_PASSWORD:-}"
  if [ ${#password} -lt 16 ]; then
    echo "make-acl: expected ${role}_PASSWORD of at least 16 characters, found ${#password}" >&2
    exit 1
  fi
  hash=$(printf %s "$password" | { sha256sum 2>/dev/null || shasum -a 256; } | cut -d' ' -f1)
  script="${script}s/#${role}_SHA256/#${hash}/;"
done
umask 077
sed -e "$script" "$here/users.acl"
