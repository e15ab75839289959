"""One line of JSON for each case: what requests and httpx make of an upload that is refused."""
import json, os, ssl, sys
import httpx, requests

def case(name, f):
    try:
        r = f()
        print(json.dumps({"case": name, "status": r.status_code, "policy": r.headers.get("X-OpenShell-Policy", ""), "body": r.text}))
    except Exception as e:
        print(json.dumps({"case": name, "failed": repr(e)}))

url, data = sys.argv[1], b"x" * 4000000
pieces = lambda: (data[i:i + 50000] for i in range(0, len(data), 50000))
trusted = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
case("requests", lambda: requests.post(url, data=data, timeout=60))
case("requests, in pieces", lambda: requests.post(url, data=pieces(), timeout=60))
for version in ("HTTP/1", "HTTP/2"):
    with httpx.Client(http1=version == "HTTP/1", http2=version == "HTTP/2", verify=trusted, timeout=60) as s:
        case("httpx, " + version, lambda: s.post(url, content=data))
        case("httpx, " + version + ", in pieces", lambda: s.post(url, content=pieces()))
