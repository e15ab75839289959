#!/usr/bin/env bash
# Docker's programs as Debian packages them, unpacked into a cache of the user for the
# test of deploy/k8s/images, not installed: an installed Docker starts a daemon that
# changes the machine's firewall. Prints the folder; where all of them are installed
# already, that of the daemon.
set -euo pipefail

if [ "$(command -v docker dockerd containerd runc | wc -l)" -eq 4 ]; then
  dirname "$(command -v dockerd)"
  exit 0
fi
dir="${XDG_CACHE_HOME:-$HOME/.cache}/splitpod/docker"
echo "$dir"
[ -e "$dir/complete" ] && exit 0
if ! command -v apt-get >/dev/null; then
  echo "docker: please install docker, dockerd, containerd and runc" >&2
  exit 1
fi
packages=(docker.io containerd runc)
apt-cache show docker.io >/dev/null 2>&1 || apt-get update -qq >&2
apt-cache show docker-cli >/dev/null 2>&1 && packages+=(docker-cli) # of its own in later releases
new=$(mktemp -d)
trap 'rm -rf "$new"' EXIT
(cd "$new" && apt-get download -qq -o APT::Sandbox::User=root "${packages[@]}" >&2)
for package in "$new"/*.deb; do dpkg -x "$package" "$new/all"; done
mkdir -p "$dir"
for program in docker dockerd containerd runc; do
  cp -f "$(find "$new/all/usr" -type f -path "*bin/$program" | head -n 1)" "$dir/"
done
touch "$dir/complete"
