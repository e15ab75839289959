#!/usr/bin/env bash
# One line of JSON for each case: what curl made of it.
site=$1 other=$2 version=$3
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
one() {
  name=$1 && shift
  if status=$(curl -sS "$version" -m 120 -o "$out/body" -D "$out/head" -w '%{http_code} %{http_version}' "$@" 2>"$out/error"); then
    python3 - "$name" "$out" $status <<'PY'
import json, sys
name, out, status, version = sys.argv[1:]
policy = [l.split(":", 1)[1].strip() for l in open(out + "/head") if l.lower().startswith("x-openshell-policy:")]
print(json.dumps({"case": name, "status": int(status), "version": "HTTP/" + version, "policy": "".join(policy), "body": open(out + "/body").read()}))
PY
  else
    python3 -c 'import json, sys; print(json.dumps({"case": sys.argv[1], "failed": open(sys.argv[2]).read()}))' "$name" "$out/error"
  fi
}
head -c 100000 /dev/zero >"$out/data"
one get "$site/ok/hello"
one post "$site/ok/echo" --data-binary "@$out/data"
one chunked "$site/ok/echo" -X POST -T - <"$out/data"
one method "$site/ok/hello" -X DELETE
one path "$site/denied"
one host "$other/"
one again "$site/ok/hello"
