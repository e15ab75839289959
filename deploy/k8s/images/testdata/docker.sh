#!/bin/sh
# Starts a Docker daemon in this mount and network namespace, of which nothing leaves
# $work, and builds each Containerfile with it. Usage: docker.sh PROGRAMS WORK CONTEXT
# ARCH NAME... ; writes WORK/NAME-classic.tar and WORK/NAME-buildkit.tar.
set -eu
PATH=$1:$PATH work=$2 context=$3 arch=$4
shift 4
export PATH DOCKER_HOST="unix://$work/docker.sock" DOCKER_CONFIG="$work/config"
mount --make-rprivate /
dockerd --iptables=false --ip6tables=false --bridge=none --storage-driver=vfs --data-root "$work/data" \
  --exec-root "$work/exec" --pidfile "$work/pid" --host "$DOCKER_HOST" >"$work/dockerd.log" 2>&1 &
daemon=$!
trap 'kill $daemon; wait $daemon || true' EXIT
tries=0
until docker version >/dev/null 2>&1; do
  tries=$((tries + 1))
  if [ $tries -gt 300 ] || ! kill -0 $daemon; then
    tail -n 20 "$work/dockerd.log" >&2
    exit 1
  fi
  sleep 0.1
done
for name; do
  for kit in 0 1; do
    tag=$([ $kit = 0 ] && echo classic || echo buildkit)
    DOCKER_BUILDKIT=$kit docker build -f "$name.Containerfile" --build-arg "TARGETARCH=$arch" --build-arg VERSION=1 -t "$name:$tag" "$context"
    docker save -o "$work/$name-$tag.tar" "$name:$tag"
  done
done
