"""One line of JSON for each case: what requests made of it."""
import json, sys
import requests

def case(name, f):
    try:
        r = f()
        print(json.dumps({"case": name, "status": r.status_code, "policy": r.headers.get("X-OpenShell-Policy", ""), "body": r.text}))
    except Exception as e:
        print(json.dumps({"case": name, "failed": str(e)}))

site, other = sys.argv[1], sys.argv[2]
s = requests.Session()
s.trust_env = True
case("get", lambda: s.get(site + "/ok/hello"))
case("post", lambda: s.post(site + "/ok/echo", data=b"x" * 100000))
case("chunked", lambda: s.post(site + "/ok/echo", data=(b"x" * 1000 for _ in range(100))))
case("method", lambda: s.delete(site + "/ok/hello"))
case("path", lambda: s.get(site + "/denied"))
case("host", lambda: s.get(other + "/"))
case("again", lambda: s.get(site + "/ok/hello"))
