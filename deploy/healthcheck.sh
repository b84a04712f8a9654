#!/bin/sh
# Whether the worker lives: it touches its heartbeat every 10 s. The argument: minutes until it counts as dead.
set -eu

heartbeat=${NSS_TRAIN_HOME:?}/heartbeat
fresh=$(find "$heartbeat" -mmin "-${1:-1}" 2>&1) || { echo "no heartbeat: $fresh" >&2; exit 1; }
[ -n "$fresh" ] || { echo "the last heartbeat is too old: $(ls -l "$heartbeat")" >&2; exit 1; }
