#!/usr/bin/env bash
# Shows what the README promises, with real programs; see test/demo.
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ "$(id -u)" -ne 0 ]; then
  echo "demo: needs root, because the process daemon builds namespaces (try: sudo make demo)" >&2
  exit 77
fi
"${GO:-go}" run ./test/demo
