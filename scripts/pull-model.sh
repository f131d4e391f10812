#!/usr/bin/env bash
# Pulls the model OLLAMA_MODEL into the Ollama at OLLAMA_BASE_URL.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # run by `sh`
set -euo pipefail +o posix
case $0 in */*) CDPATH='' cd -- "${0%/*}/.." ;; *) cd .. ;; esac
# shellcheck source=scripts/environment.sh
. scripts/environment.sh

python=$venv_python
is_fitting_python "$python" || python=$(find_python)
exec "$python" scripts/pull_model.py "$@"
