#!/usr/bin/env bash
# Writes what one needs to understand a failure: objects, events, and the logs of all our pods.
#
# usage: hack/kind-logs.sh KUBECONFIG FOLDER
set -uo pipefail
export KUBECONFIG=$1
folder=$2
rm -rf "$folder"
mkdir -p "$folder"
kubectl get nodes,pods,services,trainingjobs --all-namespaces --output wide >"$folder/objects.txt" 2>&1
kubectl get events --all-namespaces --sort-by=.lastTimestamp >"$folder/events.txt" 2>&1
kubectl get trainingjobs --all-namespaces --output yaml >"$folder/trainingjobs.yaml" 2>&1

# pods NAMESPACE-AND-SELECTOR...
pods() {
  kubectl get pods "$@" --output jsonpath='{range .items[*]}{.metadata.namespace} {.metadata.name}{"\n"}{end}'
}
{
  pods --namespace headway-system
  pods --namespace s3
  pods --all-namespaces --selector headway.dev/job-name
} | while read -r namespace pod; do
  file=$folder/$namespace.$pod
  kubectl --namespace "$namespace" describe pod "$pod" >"$file.describe.txt" 2>&1
  kubectl --namespace "$namespace" logs "$pod" --all-containers >"$file.log" 2>&1
  kubectl --namespace "$namespace" logs "$pod" --all-containers --previous >"$file.previous.log" 2>/dev/null ||
    rm -f "$file.previous.log"
done
