#!/usr/bin/env bash
# The libraries that clients of the end-to-end tests use, from the registries into a
# cache of the user, once per version of this file. Prints the folder.
set -euo pipefail

python=(requests==2.34.2 'httpx[http2]==0.28.1' openai==3.57.0 anthropic==2.14.0)
node=(undici@6.21.3 ws@8.18.3 https-proxy-agent@7.0.6 openai@6.30.1)

cache="${XDG_CACHE_HOME:-$HOME/.cache}/splitpod"
dir="$cache/clients-$(sha256sum "$0" | cut -c1-16)"
echo "$dir"
[ -e "$dir/complete" ] && exit 0
mkdir -p "$cache"
new=$(mktemp -d "$cache/clients-new-XXXXXX")
trap 'rm -rf "$new"' EXIT
python3 -m venv "$new/venv"
timeout 180 "$new/venv/bin/python3" -m pip install --quiet --disable-pip-version-check "${python[@]}" >&2
(cd "$new" && echo '{"private": true}' >package.json && timeout 180 npm install --silent --no-audit --no-fund --ignore-scripts "${node[@]}" >&2)
chmod 755 "$new"
touch "$new/complete"
rm -rf "$dir"
mv -T "$new" "$dir"
