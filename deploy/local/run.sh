#!/usr/bin/env bash
# Runs both daemons on one Linux machine the way a pod would: the network daemon as
# its own user without any capability, the process daemon as root, a directory that
# only they share. Needs root. The workload sees this machine's files as the user
# the policy names. This is not a pod: the two daemons share this machine's mount
# and pid namespaces with everything else on it.
#
#   run.sh POLICY CMD [ARG...]
#
# Environment: SPLITPOD_LOCAL_DIR keeps logs and records (default: a new temporary
# folder that is removed), SPLITPOD_NETWORK_UID is the network daemon's user
# (default 65532). SPLITPOD_LOCAL_CREDENTIALS is a credentials file
# (docs/credentials.md), SPLITPOD_LOCAL_INFERENCE_ROUTES one of inference routes
# (docs/inference.md); the secrets that they name have to be readable for the network
# daemon's user, and for nobody else: the workload sees this machine's files. The exit
# code is the workload's.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
bin=${SPLITPOD_BIN:-$here/../../bin}
unset SPLITPOD_BIN
network_uid=${SPLITPOD_NETWORK_UID:-65532}
unset SPLITPOD_NETWORK_UID

if [ $# -lt 2 ] || [ -z "$1" ]; then
  echo "usage: run.sh POLICY CMD [ARG...]   (make run POLICY=file.yaml CMD='curl -sS https://example.com')" >&2
  exit 64
fi
if [ "$(id -u)" -ne 0 ]; then
  echo "run.sh: needs root, because the process daemon builds namespaces" >&2
  exit 77
fi
policy=$(realpath "$1")
shift

if [ -n "${SPLITPOD_LOCAL_DIR:-}" ]; then
  dir=$(realpath "$SPLITPOD_LOCAL_DIR")
  keep=yes
else
  dir=$(mktemp -d)
  keep=
fi
unset SPLITPOD_LOCAL_DIR
chmod 0711 "$dir"
install -d -m 0755 -o "$network_uid" -g "$network_uid" "$dir/run"
install -d -m 0700 -o "$network_uid" -g "$network_uid" "$dir/state"
install -d -m 0755 "$dir/config"
install -m 0644 "$policy" "$dir/config/policy.yaml"

secrets=()
if [ -n "${SPLITPOD_LOCAL_CREDENTIALS:-}" ]; then
  install -m 0400 -o "$network_uid" -g "$network_uid" "$SPLITPOD_LOCAL_CREDENTIALS" "$dir/config/credentials.yaml"
  secrets+=("--credentials=$dir/config/credentials.yaml")
fi
if [ -n "${SPLITPOD_LOCAL_INFERENCE_ROUTES:-}" ]; then
  install -m 0400 -o "$network_uid" -g "$network_uid" "$SPLITPOD_LOCAL_INFERENCE_ROUTES" "$dir/config/routes.yaml"
  secrets+=("--inference-routes=$dir/config/routes.yaml")
fi
unset SPLITPOD_LOCAL_CREDENTIALS SPLITPOD_LOCAL_INFERENCE_ROUTES

# Certificate authorities of origins besides the system's, if any.
roots=${SPLITPOD_LOCAL_UPSTREAM_ROOTS:+--upstream-roots=$SPLITPOD_LOCAL_UPSTREAM_ROOTS}

network_pid=
finish() {
  code=$?
  trap - EXIT
  if [ -n "$network_pid" ]; then
    kill -TERM "$network_pid" 2>/dev/null || true
    wait "$network_pid" 2>/dev/null || true
  fi
  if [ "$code" -ne 0 ] && [ -s "$dir/network.log" ] && grep -q '^supervisor-network:' "$dir/network.log"; then
    cat "$dir/network.log" >&2
  fi
  [ -n "$keep" ] || rm -rf "$dir"
  exit "$code"
}
trap finish EXIT

setpriv --reuid "$network_uid" --regid "$network_uid" --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs \
  env -i PATH=/usr/bin:/bin "$bin/supervisor-network" serve \
  --policy "$dir/config/policy.yaml" --run-dir "$dir/run" --state-dir "$dir/state" --admin-listen= $roots "${secrets[@]}" \
  >>"$dir/network.records" 2>>"$dir/network.log" </dev/null &
network_pid=$!

# A network daemon that cannot start (a mistake in the policy) ends this at once.
for _ in $(seq 100); do
  [ -S "$dir/run/network.sock" ] && break
  kill -0 "$network_pid" 2>/dev/null || { wait "$network_pid" && code=0 || code=$?; network_pid=; exit "$code"; }
  sleep 0.05
done

set +e
"$bin/supervisor-process" run --run-dir "$dir/run" --network-uid "$network_uid" --admin-listen= \
  --records "$dir/process.records" --log-level warn -- "$@"
exit $?
