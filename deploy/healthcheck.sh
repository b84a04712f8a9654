#!/bin/sh
# Whether the workers of this host live: each touches its heartbeat every 10 s, and removes it when it leaves.
# First argument: minutes until one counts as dead. Second: the part of a worker's name before the @; any.
set -eu

beats=${NSS_TRAIN_HOME:?}/heartbeats
name="${2:-*}@$(uname -n)"
all=$(find "$beats" -name "$name" 2>&1) || { echo "no heartbeat: $all" >&2; exit 1; }
[ -n "$all" ] || { echo "no heartbeat of $name in $beats" >&2; exit 1; }
old=$(find "$beats" -name "$name" ! -mmin "-${1:-1}")
[ -z "$old" ] || { echo "the last heartbeat is too old: $old" >&2; exit 1; }
