# shellcheck shell=bash
# Sourced by dev-up.sh and dev-down.sh after environment.sh.

# Sets `compose` to the command that works here: an engine that answers and its compose plugin.
find_compose() {
  local engine
  for engine in docker podman; do
    if type -P "$engine" > /dev/null && "$engine" info > /dev/null 2>&1 &&
      "$engine" compose version > /dev/null 2>&1; then
      # shellcheck disable=SC2034 # used by the script that sources this
      compose=("$engine" compose)
      return
    fi
  done
  die "no container engine with compose answers; start Docker or podman, or leave out --compose"
}
