#!/usr/bin/env bash
# Installs the programs that the tests, the demo and code generation use, on a
# Debian-like machine. Does nothing where they are already there.
set -euo pipefail

declare -A package=(
  [curl]=curl [openssl]=openssl [git]=git [nft]=nftables [ip]=iproute2 [python3]=python3
  [protoc]=protobuf-compiler [gcc]=gcc [nc]=netcat-openbsd [script]=bsdutils [ssh]=openssh-client [rsync]=rsync
  [node]=nodejs [npm]=npm [sqlite3]=sqlite3 [perl]=perl [java]=default-jre-headless [chromium]=chromium
  [busybox]=busybox-static [pkg-config]=pkg-config [buildah]=buildah
)
# Files rather than programs: what the cluster of test/e2e/kube is built with and uses.
declare -A file=(
  [/usr/include/seccomp.h]=libseccomp-dev [/usr/lib/cni/bridge]=containernetworking-plugins
)
# The HTTP/2 conformance suite is in no distribution.
command -v h2spec >/dev/null || GOBIN=/usr/local/bin go install github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible

missing=()
for program in "${!package[@]}"; do
  command -v "$program" >/dev/null || missing+=("${package[$program]}")
done
for path in "${!file[@]}"; do
  [ -e "$path" ] || missing+=("${file[$path]}")
done
python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
if [ ${#missing[@]} -ne 0 ]; then
  if ! command -v apt-get >/dev/null; then
    echo "setup: please install: ${missing[*]}" >&2
    exit 1
  fi
  if [ "$(id -u)" -ne 0 ]; then
    echo "setup: needs root to install: ${missing[*]}" >&2
    exit 1
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
"$(dirname "$0")/clients.sh" >/dev/null
"$(dirname "$0")/docker.sh" >/dev/null
