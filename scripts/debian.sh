# shellcheck shell=bash
# Sourced by scripts that want programs of Debian's, after environment.sh. SKIP_APT=1 keeps them from
# installing any.

# Some packages start a service: prometheus on 9090, which is the metrics port of our proxy, and nginx
# on 80.
# shellcheck disable=SC2016 # expanded by the bash that runs it
apt_script='set -e
apt-get -qq update
apt-get -qq install --yes --no-install-recommends "$@" > /dev/null
for service in prometheus nginx haproxy; do
  if [[ " $* " == *" $service "* ]]; then
    if [[ -d /run/systemd/system ]]; then
      systemctl --quiet disable --now "$service"
    elif [[ -x /etc/init.d/$service ]]; then
      "/etc/init.d/$service" stop > /dev/null || true
    fi
  fi
done'

apt_install() {
  local root=()
  if [[ -n ${SKIP_APT:-} ]] || ! type -P apt-get > /dev/null; then
    return 1
  fi
  if ((EUID != 0)); then
    sudo -n true 2> /dev/null || return 1
    root=(sudo -n)
  fi
  say "Installing Debian packages: $*"
  # dpkg wants the directories of system programs, which a bare PATH does not have.
  ${root[@]+"${root[@]}"} env PATH="$PATH:/usr/sbin:/sbin" DEBIAN_FRONTEND=noninteractive bash -c "$apt_script" bash "$@"
}
