#!/usr/bin/env bash
# From nothing to a served prediction on a laptop: image, kind cluster, KubeRay, service, one request.
# It may be run again; `kind delete cluster --name equipoise` takes everything away.
set -euo pipefail
cd "$(dirname "$0")/../.."

KUBERAY=1.7.0
IMAGE=equipoise:0.1.0-cpu
CONTEXT=kind-equipoise

for tool in docker kind kubectl helm make; do
  if ! command -v "$tool" >/dev/null; then
    echo "up.sh: $tool is not installed; it needs docker, kind, kubectl, helm and make" >&2
    exit 2
  fi
done

scratch=$(mktemp -d)
forward=
clean() {
  if [[ -n $forward ]]; then kill "$forward" 2>/dev/null || true; fi
  rm -rf "$scratch"
}
trap clean EXIT

step() { echo "== $*"; }
on() { kubectl --context "$CONTEXT" "$@"; }

step "the example's bundle (the demo runs if there is none: about ten minutes)"
if [[ ! -f runs/demo/bundle/bundle.json ]]; then make demo; else make install; fi

step "image $IMAGE"
docker build -f k8s/image/Dockerfile --target cpu -t "$IMAGE" .

step "kind cluster"
if ! kind get clusters | grep -qx equipoise; then
  sed "s|RUNS|$PWD/runs|" k8s/kind/cluster.yaml > "$scratch/cluster.yaml"
  kind create cluster --name equipoise --config "$scratch/cluster.yaml"
fi
kind load docker-image "$IMAGE" --name equipoise

step "KubeRay $KUBERAY"
helm upgrade --install kuberay-operator kuberay-operator --kube-context "$CONTEXT" \
  --repo https://ray-project.github.io/kuberay-helm --version "$KUBERAY" \
  -n kuberay-operator --create-namespace --wait

step "service"
on apply -f k8s/namespace.yaml
if ! on -n equipoise get secret api-keys >/dev/null 2>&1; then
  .venv/bin/equipoise keys "$scratch/keys.json" --add kind --json > "$scratch/made.json"
  .venv/bin/python -c 'import json, sys; print(json.load(sys.stdin)["key"], end="")' \
    < "$scratch/made.json" > "$scratch/key"
  on -n equipoise create secret generic api-keys --from-file="$scratch/keys.json" --from-file="$scratch/key"
fi
kubectl kustomize --load-restrictor LoadRestrictionsNone k8s/kind | on apply -f -
on -n equipoise wait rayservice/classifier --for=condition=Ready --timeout=15m

step "one prediction"
on -n equipoise get secret api-keys -o 'go-template={{.data.key | base64decode}}' > "$scratch/key"
on -n equipoise port-forward svc/classifier-serve-svc 18000:8000 >/dev/null &
forward=$!
sleep 3
.venv/bin/python -m equipoise.pipeline.endpoint_check --url http://127.0.0.1:18000 \
  --key-file "$scratch/key" --text "Gulf raises crude oil prices"

cat <<NEXT

It stays up. To ask it yourself:
  kubectl --context $CONTEXT -n equipoise port-forward svc/classifier-serve-svc 8000:8000
  kubectl --context $CONTEXT -n equipoise get secret api-keys -o 'go-template={{.data.key | base64decode}}'
  kind delete cluster --name equipoise    # and everything is gone
NEXT
