"""One line of JSON for each case: what httpx made of it."""
import json, os, ssl, sys
import httpx

def case(name, f):
    try:
        r = f()
        print(json.dumps({"case": name, "status": r.status_code, "policy": r.headers.get("X-OpenShell-Policy", ""), "body": r.text, "version": r.http_version}))
    except Exception as e:
        print(json.dumps({"case": name, "failed": str(e)}))

site, other, http2 = sys.argv[1], sys.argv[2], sys.argv[3] == "h2"
with httpx.Client(http1=not http2, http2=http2, verify=ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"]), timeout=120) as s:
    case("get", lambda: s.get(site + "/ok/hello"))
    case("post", lambda: s.post(site + "/ok/echo", content=b"x" * 100000))
    case("chunked", lambda: s.post(site + "/ok/echo", content=(b"x" * 1000 for _ in range(100))))
    case("method", lambda: s.delete(site + "/ok/hello"))
    case("path", lambda: s.get(site + "/denied"))
    case("host", lambda: s.get(other + "/"))
    case("again", lambda: s.get(site + "/ok/hello"))
