#!/usr/bin/env bash
# Headway on this machine: a kind cluster, both images, an S3 server, the chart, an example.
# Run it again after a change: it builds, loads and upgrades what has changed.
#
# usage: hack/kind-up.sh [--name NAME] [--kubeconfig FILE] [--no-example] [--horovod]
#   --name        kind's name for the cluster (default: headway)
#   --kubeconfig  file to write (default: .headway/kind/kubeconfig); ~/.kube/config stays as it is
#   --no-example  stop when the operator is ready
#   --horovod     the trainer image with Horovod, too (compiled once, which takes minutes)
# environment: TRAINER_BASE_IMAGE  base of the trainer images, with torch in it
#              SEAWEED_IMAGE       the S3 server (default: the one in hack/seaweed.yaml)
# needs docker, kind, kubectl, helm and python3 on PATH.
set -euo pipefail
cd "$(dirname "$0")/.."

name=headway kubeconfig=.headway/kind/kubeconfig example=yes horovod=no
while (($#)); do
  case $1 in
    --name) name=$2; shift 2 ;;
    --kubeconfig) kubeconfig=$2; shift 2 ;;
    --no-example) example=no; shift ;;
    --horovod) horovod=yes; shift ;;
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    *) echo "unknown argument $1: see $0 --help" >&2; exit 2 ;;
  esac
done
for tool in docker kind kubectl helm python3; do
  command -v "$tool" >/dev/null || { echo "$tool is not on PATH: install it first" >&2; exit 2; }
done
mkdir -p "$(dirname "$kubeconfig")"
KUBECONFIG=$(cd "$(dirname "$kubeconfig")" && pwd)/$(basename "$kubeconfig")
export KUBECONFIG
seaweed=$(sed -n 's/^ *image: //p' hack/seaweed.yaml)

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }

on_exit() {
  local code=$?
  ((code == 0)) && return
  hack/kind-logs.sh "$KUBECONFIG" ".headway/kind/$name-logs" || true
  echo "hack/kind-up.sh failed; logs are in .headway/kind/$name-logs" >&2
}

cluster() {
  if kind get clusters 2>/dev/null | grep -qx "$name"; then
    # A reboot, or a test that was broken off, may have left nodes stopped.
    kind get nodes --name "$name" | xargs docker start >/dev/null
    kind export kubeconfig --name "$name" --kubeconfig "$KUBECONFIG" 2>/dev/null
  else
    kind create cluster --name "$name" --config hack/kind.yaml --kubeconfig "$KUBECONFIG" --wait 120s
  fi
  kubectl wait --for=condition=Ready nodes --all --timeout=180s >/dev/null
  # kind puts all of DNS on one worker, and without it nothing works for minutes when that dies.
  kubectl --namespace kube-system patch deployment coredns --type merge --patch \
    '{"spec": {"template": {"spec": {"nodeSelector": {"node-role.kubernetes.io/control-plane": ""}}}}}'
  kubectl --namespace kube-system rollout status deployment/coredns --timeout=120s
}

build_trainer() {
  docker build --tag "$1" --file "trainer-image/$2" \
    ${TRAINER_BASE_IMAGE:+--build-arg "BASE_IMAGE=$TRAINER_BASE_IMAGE"} .
}

image_id() { docker image inspect --format '{{.Id}}' "$1"; }

# load IMAGE SELECTOR: an annotation on each node tells which build it has, so that what has not
# changed is not sent again.
load() {
  local image=$1 id key node missing=()
  id=$(image_id "$image")
  key=kind-up.headway.dev/$(echo "${image%%:*}" | tr / .)
  for node in $(kubectl get nodes --selector "$2" --output name); do
    if ! kubectl get "$node" --output json | grep -qF "\"$key\": \"$id\""; then
      missing+=("${node#node/}")
    fi
  done
  ((${#missing[@]})) || return 0
  python3 hack/kind_load.py "$image" "${missing[@]}"
  kubectl annotate --overwrite node "${missing[@]}" "$key=$id" >/dev/null
}

storage() {
  local image=${SEAWEED_IMAGE:-$seaweed}
  # Where it is not here already, the node pulls it.
  if docker image inspect "$image" >/dev/null 2>&1; then
    load "$image" node-role.kubernetes.io/control-plane
  fi
  sed "s|image: $seaweed|image: $image|" hack/seaweed.yaml | kubectl apply --filename -
  kubectl --namespace s3 rollout status deployment/seaweedfs --timeout=180s
  if ! weed_shell s3.bucket.list | grep -qw headway; then
    weed_shell s3.bucket.create -name headway
  fi
}

weed_shell() {
  echo "$@" | kubectl --namespace s3 exec --stdin deployment/seaweedfs -- weed shell
}

chart() {
  kubectl create namespace headway-system --dry-run=client --output yaml | kubectl apply --filename -
  kubectl label --overwrite namespace headway-system pod-security.kubernetes.io/enforce=restricted
  # Helm installs CRDs but never updates them.
  kubectl apply --server-side --force-conflicts --filename charts/headway/crds/
  helm upgrade --install headway charts/headway --namespace headway-system \
    --set image.tag=dev --set image.pullPolicy=Never \
    --set-string "podAnnotations.headway\.dev/image-id=$(image_id headway-operator:dev)" \
    --wait --timeout 180s
}

# run_example FILE: from a clean start to Succeeded.
run_example() {
  kubectl delete --ignore-not-found --filename "$1"
  kubectl apply --filename "$1"
  local phase line last=
  for ((i = 0; i < 600; i++)); do
    line=$(kubectl get trainingjobs --no-headers)
    [[ $line == "$last" ]] || echo "$line"
    last=$line
    phase=$(kubectl get --filename "$1" --output jsonpath='{.status.phase}')
    case $phase in
      Succeeded) return 0 ;;
      Failed) kubectl describe --filename "$1"; return 1 ;;
    esac
    sleep 1
  done
  echo "the example did not succeed within 10 minutes" >&2
  return 1
}

trap on_exit EXIT
say "cluster $name"
cluster
say "images"
images=(headway-operator:dev headway-trainer:dev)
docker build --tag headway-operator:dev .
build_trainer headway-trainer:dev Dockerfile
if [[ $horovod == yes ]]; then
  build_trainer headway-trainer-horovod:dev Dockerfile.horovod
  images+=(headway-trainer-horovod:dev)
fi
for image in "${images[@]}"; do
  load "$image" '!node-role.kubernetes.io/control-plane'
done
say "storage"
storage
say "chart"
chart
if [[ $example == yes ]]; then
  say "example"
  run_example examples/digits/job.yaml
fi
say "ready"
cat <<EOF
export KUBECONFIG=$kubeconfig
kubectl get trainingjobs -A
hack/kind-down.sh --name $name      # when you are done
EOF
