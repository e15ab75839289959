#!/usr/bin/env bash
# Installs what is missing of the programs that are used here, on a Debian-like machine;
# elsewhere it says what to install.
#
#   setup.sh         for the tests and code generation
#   setup.sh demo    for make demo and make run
set -euo pipefail

declare -A package=(
  [curl]=curl [git]=git [python3]=python3 [setpriv]=util-linux
)
# Files rather than programs: what the cluster of test/e2e/kube is built with and uses, and roots.
declare -A file=()
if [ "${1:-}" != demo ]; then
  package+=(
    [openssl]=openssl [nft]=nftables [ip]=iproute2 [protoc]=protobuf-compiler [gcc]=gcc
    [nc]=netcat-openbsd [script]=bsdutils [ssh]=openssh-client [rsync]=rsync [node]=nodejs [npm]=npm
    [sqlite3]=sqlite3 [perl]=perl [java]=default-jre-headless [ecj]=ecj [chromium]=chromium
    [busybox]=busybox-static [pkg-config]=pkg-config [buildah]=buildah
  )
  file+=(
    [/usr/include/seccomp.h]=libseccomp-dev [/usr/lib/cni/bridge]=containernetworking-plugins
    [/etc/ssl/certs/ca-certificates.crt]=ca-certificates
  )
fi

if ! command -v "${GO:-go}" >/dev/null; then
  echo "setup: please install Go 1.26 or newer (https://go.dev/dl) and put it on the PATH" >&2
  exit 1
fi
missing=()
for program in "${!package[@]}"; do
  command -v "$program" >/dev/null || missing+=("${package[$program]}")
done
for path in "${!file[@]}"; do
  [ -e "$path" ] || missing+=("${file[$path]}")
done
if [ "${1:-}" != demo ] && ! python3 -c 'import ensurepip' 2>/dev/null; then
  missing+=(python3-venv)
fi
if [ ${#missing[@]} -ne 0 ]; then
  if ! command -v apt-get >/dev/null; then
    echo "setup: please install: ${missing[*]} (names of Debian's packages)" >&2
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
[ "${1:-}" != demo ] || exit 0

# Of Debian's package prometheus promtool alone: no server, no service, no libraries.
if ! command -v promtool >/dev/null; then
  if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
    echo "setup: please put promtool (of Prometheus) on the PATH" >&2
    exit 1
  fi
  folder=$(mktemp -d)
  bring() { (cd "$folder" && apt-get -qq -o APT::Sandbox::User=root download prometheus >/dev/null); }
  bring 2>/dev/null || { apt-get update -qq && bring; }
  dpkg --fsys-tarfile "$folder"/prometheus_*.deb | tar -xf - -C "$folder" ./usr/bin/promtool
  install "$folder/usr/bin/promtool" /usr/local/bin/
  rm -r "$folder"
fi
# The HTTP/2 conformance suite is in no distribution.
command -v h2spec >/dev/null || GOBIN=/usr/local/bin "${GO:-go}" install github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible
"$(dirname "$0")/clients.sh" >/dev/null
"$(dirname "$0")/docker.sh" >/dev/null
