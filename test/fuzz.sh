#!/usr/bin/env bash
# Runs every fuzz target of the module for the given time each. Fails when a target
# fails, and when there is none.
set -euo pipefail
time="${1:-10s}"
count=0
while IFS=: read -r file target; do
  count=$((count + 1))
  go test "./$(dirname "$file")" -run '^$' -fuzz "^${target}\$" -fuzztime "$time"
done < <(grep -rnoE --include='*_test.go' '^func (Fuzz[A-Za-z0-9_]+)' . | sed -E 's/^\.\/([^:]+):[0-9]+:func /\1:/')
[ "$count" -gt 0 ] || { echo "no fuzz targets found" >&2; exit 1; }
echo "$count fuzz targets"
