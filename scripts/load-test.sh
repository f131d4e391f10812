#!/usr/bin/env bash
# Sends a mixed workload of all three kinds through the running stack; --help tells the options.
# Fails if a request met an error or went to a pool other than its own.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # run by `sh`
set -euo pipefail +o posix
case $0 in */*) CDPATH='' cd -- "${0%/*}/.." ;; *) cd .. ;; esac
# shellcheck source=scripts/environment.sh
. scripts/environment.sh

require_venv
exec "$venv_python" scripts/load_test.py "$@"
