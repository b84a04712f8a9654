#!/bin/sh
# Runs a command with secrets from files: in a container, in Kubernetes, under systemd.
# Each file of the folder is a variable: its name, and its text without the last line break.
set -eu
# What a worker or a client keeps is its own user's alone.
umask 077

folder=${CREDENTIALS_DIRECTORY:-${SECRETS_DIR:-/run/secrets}}
for file in "$folder"/NSS_TRAIN_* "$folder"/FLOWER_*; do
    [ -f "$file" ] || continue
    value=$(cat "$file")
    export "${file##*/}=$value"
done
exec "$@"
