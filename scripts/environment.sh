# shellcheck shell=bash
# Sourced by the scripts beside it, in the checkout's directory and with `set -euo pipefail`:
# finds a Python, makes .venv and installs the locked dependencies. Needs no program but Python.

venv_python=.venv/bin/python

say() { printf '%s\n' "$*"; }

die() {
  printf 'error: %s\n' "$1" >&2
  exit "${2:-1}"
}

# Whether $1 runs, and is what the lock was made for: CPython 3.13 or newer, not free-threaded.
is_fitting_python() {
  "$1" -c 'import sys, sysconfig
fits = sys.version_info >= (3, 13) and sys.implementation.name == "cpython"
sys.exit(not fits or bool(sysconfig.get_config_var("Py_GIL_DISABLED")))' > /dev/null 2>&1
}

has_venv_module() { "$1" -c 'import ensurepip, venv' > /dev/null 2>&1; }

has_pip() { "$1" -m pip --disable-pip-version-check --version > /dev/null 2>&1; }

# Where a Python may be, best first; 3.13 is what the tests run on. pyenv's shims refuse to run
# without PYENV_VERSION, so the programs behind them are named.
python_candidates() {
  local found pyenv=${PYENV_ROOT:-${HOME:-}/.pyenv}/versions
  if [[ -n ${PYTHON:-} ]]; then
    type -P "$PYTHON" || true
  fi
  type -P python3.13 || true
  for found in "$pyenv"/3.13*/bin/python; do say "$found"; done
  if type -P uv > /dev/null; then
    uv python find --system 3.13 2> /dev/null || true
  fi
  for found in python3.14 python3 python; do type -P "$found" || true; done
  for found in "$pyenv"/3.1[4-9]*/bin/python; do say "$found"; done
  if type -P uv > /dev/null; then
    uv python find --system '>=3.13' 2> /dev/null || true
  fi
}

# Prints the Python to use, or says what to install and fails.
find_python() {
  local candidate without_venv=""
  if [[ -n ${PYTHON:-} ]] && ! is_fitting_python "$PYTHON"; then
    say "note: PYTHON=$PYTHON is not Python 3.13 or newer; looking for another" >&2
  fi
  while IFS= read -r candidate; do
    is_fitting_python "$candidate" || continue
    if has_venv_module "$candidate"; then
      say "$candidate"
      return
    fi
    without_venv=$candidate
  done < <(python_candidates)
  if [[ -n $without_venv ]]; then
    say "error: $without_venv lacks the modules venv and ensurepip;" \
      "install them (Debian: apt-get install python3-venv) and run this again" >&2
  else
    say "error: no Python 3.13 or newer found (looked at \$PYTHON, PATH, pyenv and uv)" >&2
    say "Install one: uv python install 3.13, or pyenv install 3.13, or your system's python3.13" \
      "with its venv package; or set PYTHON=/path/to/python3.13. Then run this again." >&2
  fi
  return 1
}

# Makes .venv unless it has a fitting Python and a pip. An interrupted `python -m venv` leaves one
# without pip or with half of it, so pip has to run.
make_venv() {
  local python
  if is_fitting_python "$venv_python" && has_pip "$venv_python"; then
    return
  fi
  python=$(find_python) || exit 1
  say "Making .venv with $python"
  "$python" -m venv --clear .venv
}

# Installs requirements.lock unless this very file has been installed before. The project itself
# is not installed: everything is run from the checkout.
install_lock() {
  local stamp=.venv/requirements.sha256 digest
  digest=$("$venv_python" -c 'import hashlib, pathlib
print(hashlib.sha256(pathlib.Path("requirements.lock").read_bytes()).hexdigest())')
  if [[ -r $stamp && $(< "$stamp") == "$digest" ]]; then
    return
  fi
  say "Installing the locked dependencies into .venv (takes a minute or two)"
  "$venv_python" -m pip install --quiet --quiet --disable-pip-version-check --no-input \
    --require-hashes --requirement requirements.lock ||
    die "the dependencies could not be installed; see pip's message above"
  say "$digest" > "$stamp"
}

prepare_environment() {
  make_venv
  install_lock
}

# The Python of .venv for scripts that only use what dev-up.sh has set up.
require_venv() {
  is_fitting_python "$venv_python" ||
    die "there is no usable .venv; run scripts/dev-up.sh first"
}
