#!/bin/sh
# NAME_FILE=/run/secrets/x becomes NAME=<content of x>: for programs that read no files of secrets (Dagster's storage).
set -eu
for name in $(env | sed -n 's/^\([A-Z_]*\)_FILE=\/run\/secrets\/.*$/\1/p'); do
  case "$name" in QMT_*) continue ;; esac # QMT_ENV_FILE is read by the settings themselves
  eval "path=\${${name}_FILE}"
  eval "$name=\$(cat \"\$path\")"
  export "${name?}"
done
exec "$@"
