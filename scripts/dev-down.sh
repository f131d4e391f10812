#!/usr/bin/env bash
# Stops what scripts/dev-up.sh started: local processes, or containers with --compose.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # run by `sh`
set -euo pipefail +o posix
case $0 in */*) CDPATH='' cd -- "${0%/*}/.." ;; *) cd .. ;; esac
# shellcheck source=scripts/environment.sh
. scripts/environment.sh

case ${1:-} in
  "")
    if [[ ! -d .run ]]; then
      say "nothing is running"
      exit
    fi
    python=$venv_python
    is_fitting_python "$python" || python=$(find_python)
    exec "$python" scripts/stack.py down
    ;;
  --compose)
    # shellcheck source=scripts/compose.sh
    . scripts/compose.sh
    find_compose
    exec "${compose[@]}" down
    ;;
  -h | --help) say "usage: scripts/dev-down.sh [--compose]" ;;
  *) die "unknown option $1; usage: scripts/dev-down.sh [--compose]" 2 ;;
esac
