#!/usr/bin/env bash
# Builds the cluster of test/e2e/kube from source into a cache folder outside the
# repository and prints that folder. Cold it takes about 20 minutes of processor time,
# warm it does nothing: start it in the background early. Two at once wait for each
# other. The folder's name is the hash of what is built, so a stale one is never used.
set -euo pipefail
cd "$(dirname "$0")"
key=$(cat build.sh control/main.go {control,node}/go.{mod,sum} | sha256sum | cut -c1-16)
cache=${SPLITPOD_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/splitpod}
dir=$cache/kube-$key
mkdir -p "$dir"
touch "$dir"
find "$cache" -maxdepth 1 -name 'kube-*' -mtime +14 -exec rm -rf {} + # earlier ones
exec 9>"$dir/.lock"
flock 9
if [ ! -e "$dir/.complete" ]; then
  kubernetes=$(go list -C control -m -f '{{.Version}}' k8s.io/kubernetes)
  IFS=. read -r major minor _ <<<"${kubernetes#v}"
  v=k8s.io/component-base/version
  {
    go build -C control -trimpath -o "$dir/control" -ldflags \
      "-s -w -X $v.gitVersion=$kubernetes -X $v.gitMajor=$major -X $v.gitMinor=$minor -X $v.gitTreeState=clean"
    for name in etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kubectl helm; do
      ln -sf control "$dir/$name"
    done
    for name in containerd containerd-shim-runc-v2 ctr; do
      go build -C node -trimpath -ldflags '-s -w' -o "$dir/" "github.com/containerd/containerd/v2/cmd/$name"
    done
    CGO_ENABLED=1 go build -C node -trimpath -tags seccomp -ldflags '-s -w' -o "$dir/" github.com/opencontainers/runc
  } >&2
  touch "$dir/.complete"
fi
echo "$dir"
