#!/usr/bin/env bash
# Sets up .venv, starts the whole stack, waits until it is ready and sends a request of each kind.
#
#   cp .env.example .env && source scripts/dev-up.sh     in bash or zsh; activates .venv as well
#   scripts/dev-up.sh                                    the same without activating
#   scripts/dev-up.sh --compose                          in containers, if an engine answers
#
# Safe to run again. scripts/dev-down.sh stops what it started.

# A plain sh runs the next lines too, so they are for every shell.
if [ -z "${BASH_VERSION:-}${ZSH_VERSION:-}" ]; then
  case $0 in
    *dev-up.sh) exec bash "$0" "$@" ;;
    *)
      echo "error: only bash and zsh can source dev-up.sh; run it instead: scripts/dev-up.sh" >&2
      return 2
      ;;
  esac
fi

# Sourced: the work is done by a child process, for nothing here may end or change the user's shell.
# Without words behind `source`, "$@" is that of whoever sources this, and none of our business.
_slb_script=$0
_slb_sourced=no
_slb_words=yes
if [ -n "${ZSH_VERSION:-}" ]; then
  case ${ZSH_EVAL_CONTEXT:-} in *file*) _slb_sourced=yes ;; esac
  # zsh does not tell whose "$@" it is: our own words begin with a dash.
  case ${1:-} in -*) ;; *) _slb_words=no ;; esac
elif [ "${BASH_SOURCE[0]}" != "$0" ]; then
  _slb_script=${BASH_SOURCE[0]}
  _slb_sourced=yes
  # Where no words are given, bash puts the file's own name here.
  if [ "${BASH_ARGV[0]:-}" = "$_slb_script" ]; then _slb_words=no; fi
fi
if [ "$_slb_sourced" = yes ]; then
  case $_slb_script in */*) ;; *) _slb_script=./$_slb_script ;; esac
  _slb_status=0
  if [ "$_slb_words" = yes ]; then
    "${BASH:-bash}" "$_slb_script" "$@" || _slb_status=$?
  else
    "${BASH:-bash}" "$_slb_script" || _slb_status=$?
  fi
  if [ "$_slb_status" -eq 0 ] && [ -r "${_slb_script%/*}/../.venv/bin/activate" ]; then
    # shellcheck source=/dev/null
    . "${_slb_script%/*}/../.venv/bin/activate"
  fi
  eval "unset _slb_script _slb_sourced _slb_words _slb_status; return $_slb_status"
fi

[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # run by zsh
set -euo pipefail +o posix
case $0 in */*) CDPATH='' cd -- "${0%/*}/.." ;; *) cd .. ;; esac
# shellcheck source=scripts/environment.sh
. scripts/environment.sh

usage() {
  say "usage: [source] scripts/dev-up.sh [--compose]"
}

up_with_processes() {
  prepare_environment
  if [[ ! -e .env ]]; then
    say "note: no .env here, so all settings have their defaults; see .env.example"
  fi
  "$venv_python" scripts/stack.py up
  say ""
  "$venv_python" scripts/sample_requests.py
}

up_with_compose() {
  local python
  # shellcheck source=scripts/compose.sh
  . scripts/compose.sh
  find_compose
  "${compose[@]}" up --build --detach
  if python=$(find_python 2> /dev/null); then
    "$python" scripts/sample_requests.py --wait 120
  else
    say "Started. Without a Python here no sample request is sent; see http://localhost:3000"
  fi
}

case ${1:-} in
  "") up_with_processes ;;
  --compose) up_with_compose ;;
  -h | --help) usage ;;
  *)
    usage >&2
    die "unknown option $1" 2
    ;;
esac
