#!/usr/bin/env bash
# Deletes a cluster that hack/kind-up.sh made, with its kubeconfig.
#
# usage: hack/kind-down.sh [--name NAME] [--kubeconfig FILE]
set -euo pipefail
cd "$(dirname "$0")/.."

name=headway kubeconfig=.headway/kind/kubeconfig
while (($#)); do
  case $1 in
    --name) name=$2; shift 2 ;;
    --kubeconfig) kubeconfig=$2; shift 2 ;;
    *) echo "usage: $0 [--name NAME] [--kubeconfig FILE]" >&2; exit 2 ;;
  esac
done
kind delete cluster --name "$name" --kubeconfig "$kubeconfig"
rm -f "$kubeconfig"
