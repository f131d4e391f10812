#!/usr/bin/env bash
# Builds the image inside a running minikube, applies k8s/ to it and waits until all is ready.
# --dry-run prints the commands instead. MINIKUBE_PROFILE chooses another profile than `minikube`.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # run by `sh`
set -euo pipefail +o posix
case $0 in */*) CDPATH='' cd -- "${0%/*}/.." ;; *) cd .. ;; esac
# shellcheck source=scripts/environment.sh
. scripts/environment.sh

image=semantic-load-balancer:local
namespace=semantic-load-balancer
profile=${MINIKUBE_PROFILE:-minikube}
# Never whatever cluster kubectl happens to point at.
kubectl=(kubectl --context "$profile" --namespace "$namespace")
deployments=(worker-general worker-high-compute worker-fast-path classifier proxy dashboard)

usage="usage: scripts/minikube-deploy.sh [--dry-run]"
dry_run=no
case ${1:-} in
  "") ;;
  --dry-run) dry_run=yes ;;
  -h | --help)
    say "$usage"
    exit
    ;;
  *) die "unknown option $1; $usage" 2 ;;
esac

run() {
  printf '+ %s\n' "$*"
  if [[ $dry_run == no ]]; then
    "$@"
  fi
}

require_tools() {
  local tool
  for tool in minikube kubectl; do
    type -P "$tool" > /dev/null || die "$tool is not installed; see https://$1"
    shift
  done
  minikube --profile "$profile" status > /dev/null 2>&1 ||
    die "minikube is not running; start it with:\
 minikube start --profile $profile --cni calico --cpus 4 --memory 6g"
}

# Our deployments that are there already. A dry run takes it that all of them are.
present_deployments() {
  if [[ $dry_run == yes ]]; then
    printf 'deployment.apps/%s\n' "${deployments[@]}"
    return
  fi
  "${kubectl[@]}" get deployments --output name \
    --selector app.kubernetes.io/part-of=semantic-load-balancer
}

if [[ $dry_run == no ]]; then
  require_tools minikube.sigs.k8s.io/docs/start kubernetes.io/docs/tasks/tools
fi
# The autoscalers read CPU use from it.
run minikube --profile "$profile" addons enable metrics-server
run minikube --profile "$profile" image build --tag "$image" .
present=$(present_deployments)
run "${kubectl[@]}" apply --kustomize k8s
# The tag stays the same from build to build, so pods that ran before have to be told.
for deployment in $present; do
  run "${kubectl[@]}" rollout restart "$deployment"
done
for deployment in "${deployments[@]}"; do
  run "${kubectl[@]}" rollout status "deployment/$deployment" --timeout 300s
done
say "Dashboard: kubectl --context $profile --namespace $namespace port-forward service/dashboard 3000"
say "Proxy: the URL below; minikube may need this terminal for as long as it is used"
run minikube --profile "$profile" service --namespace "$namespace" proxy --url
