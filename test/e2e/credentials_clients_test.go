package e2e_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha1"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cgi"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/splitpod/splitpod/test/need"
)

// basicAuth lets requests with a password pass.
func basicAuth(user, password string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, p, _ := r.BasicAuth(); u != user || p != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			http.Error(w, "unauthorized", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// gitServer serves one repository that has to be pushed to with a token.
func gitServer(t *testing.T, token string) http.Handler {
	t.Helper()
	dir := t.TempDir()
	script := "git init -q --bare repo.git && cd repo.git && git symbolic-ref HEAD refs/heads/main && git config http.receivepack true"
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	path, err := exec.Command("git", "--exec-path").Output()
	must(t, err)
	backend := &cgi.Handler{Path: filepath.Join(strings.TrimSpace(string(path)), "git-http-backend"), Root: "/", Dir: dir,
		Env: []string{"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1", "REMOTE_USER=x", "HOME=" + dir}}
	return basicAuth("x-access-token", token, backend)
}

// npmRegistry has one package, for who has the token.
func npmRegistry(token string) http.Handler {
	var pack bytes.Buffer
	gz := gzip.NewWriter(&pack)
	tw := tar.NewWriter(gz)
	for name, text := range map[string]string{"package/package.json": `{"name":"tiny","version":"1.0.0","main":"index.js"}`, "package/index.js": "module.exports = 'tiny works'\n"} {
		_ = tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))})
		_, _ = io.WriteString(tw, text)
	}
	_ = tw.Close()
	_ = gz.Close()
	sum, short := sha512.Sum512(pack.Bytes()), sha1.Sum(pack.Bytes())
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Authorization") != "Bearer "+token:
			http.Error(w, `{"error":"unauthorized"}`, http.StatusUnauthorized)
		case strings.HasSuffix(r.URL.Path, ".tgz"):
			_, _ = w.Write(pack.Bytes())
		case r.URL.Path == "/tiny":
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(map[string]any{"name": "tiny", "dist-tags": map[string]string{"latest": "1.0.0"}, "versions": map[string]any{"1.0.0": map[string]any{
				"name": "tiny", "version": "1.0.0", "dist": map[string]string{"tarball": "https://" + r.Host + "/tiny/-/tiny-1.0.0.tgz", "shasum": hex.EncodeToString(short[:]),
					"integrity": "sha512-" + base64.StdEncoding.EncodeToString(sum[:])}}}})
		default:
			http.NotFound(w, r)
		}
	})
}

// pythonIndex has one wheel, for who has the token.
func pythonIndex(token string) http.Handler {
	var wheel bytes.Buffer
	z := zip.NewWriter(&wheel)
	for name, text := range map[string]string{
		"tinypy.py":                     "print('tinypy works')\n",
		"tinypy-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tinypy\nVersion: 1.0\n",
		"tinypy-1.0.dist-info/WHEEL":    "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
		"tinypy-1.0.dist-info/RECORD":   "tinypy.py,,\ntinypy-1.0.dist-info/METADATA,,\ntinypy-1.0.dist-info/WHEEL,,\ntinypy-1.0.dist-info/RECORD,,\n",
	} {
		f, _ := z.Create(name)
		_, _ = io.WriteString(f, text)
	}
	_ = z.Close()
	return basicAuth("__token__", token, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, ".whl"):
			_, _ = w.Write(wheel.Bytes())
		case strings.HasPrefix(r.URL.Path, "/simple/tinypy"):
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprint(w, `<a href="/files/tinypy-1.0-py3-none-any.whl">tinypy-1.0-py3-none-any.whl</a>`)
		default:
			http.NotFound(w, r)
		}
	}))
}

// TestRealClientsUseCredentialsTheyDoNotHave: in a sandbox, with what its environment
// holds. C1, C4, rows 55 and 57.
func TestRealClientsUseCredentialsTheyDoNotHave(t *testing.T) {
	for _, program := range []string{"curl", "git", "npm", "python3"} {
		need.Program(t, program)
	}
	secrets := map[string]string{"GITHUB_TOKEN": plainSecret("GITHUB_TOKEN"), "NPM_TOKEN": plainSecret("NPM_TOKEN"), "PIP_TOKEN": plainSecret("PIP_TOKEN"), "OPENAI_API_KEY": "sk-" + plainSecret("OPENAI")}
	o := origin(t, false)
	at := map[string]*sink{"GITHUB_TOKEN": origin(t, false, gitServer(t, secrets["GITHUB_TOKEN"])), "NPM_TOKEN": origin(t, false, npmRegistry(secrets["NPM_TOKEN"])), "PIP_TOKEN": origin(t, false, pythonIndex(secrets["PIP_TOKEN"]))}
	file, endpoints := "version: 1\ncredentials:\n", ""
	for key := range secrets {
		file += "  " + key + ":\n    file: SECRETS/" + key + "\n    bindings:\n      - {host: api.demo.test, port: " + o.port + "}\n"
		if s := at[key]; s != nil {
			file += "      - {host: api.demo.test, port: " + s.port + "}\n"
			endpoints += "      - {host: api.demo.test, port: " + s.port + ", protocol: rest, access: full, enforcement: enforce}\n"
		}
		if key == "OPENAI_API_KEY" {
			file += "    placeholder: alias\n    alias_prefix: sk-\n"
		}
	}
	endpoints += "      - {host: api.demo.test, port: " + o.port + ", protocol: rest, access: full, enforcement: enforce}\n"
	p := sealed(t, "version: 1\n"+who+"filesystem_policy: {read_only: [/usr, /etc, /lib, /proc, /dev], read_write: [/tmp, /dev/null]}\nnetwork_policies:\n  all:\n    endpoints:\n"+endpoints+"    binaries: [{path: \"/**\"}]\n", file, secrets)
	p.startNetwork("--credentials", p.dir+"/config/credentials.yaml")
	script := strings.NewReplacer("PORT", o.port, "GITPORT", at["GITHUB_TOKEN"].port, "NPMPORT", at["NPM_TOKEN"].port, "PIPPORT", at["PIP_TOKEN"].port).Replace(`
cd $(mktemp -d) && export HOME=$PWD
env | sort; cat /proc/*/environ 2>/dev/null | tr '\0' '\n'
case $OPENAI_API_KEY in sk-*) echo shape ok;; esac
curl -sS -m 120 https://api.demo.test:PORT/curl-bearer -H "Authorization: Bearer $GITHUB_TOKEN" && echo
curl -sS -m 120 https://api.demo.test:PORT/curl-basic -u "user:$GITHUB_TOKEN" && echo
curl -sS -m 120 https://api.demo.test:PORT/curl-alias -H "Authorization: Bearer $OPENAI_API_KEY" && echo
git init -q w && cd w && git config user.name a && git config user.email a@b && dd if=/dev/urandom of=f bs=1k count=300 2>/dev/null && git add f && git commit -qm one &&
  git push -q "https://x-access-token:$GITHUB_TOKEN@api.demo.test:GITPORT/repo.git" HEAD:refs/heads/main && echo git push ok
cd .. && git clone -q "https://x-access-token:$GITHUB_TOKEN@api.demo.test:GITPORT/repo.git" c && cmp w/f c/f && echo git clone ok
mkdir n && cd n && printf '//api.demo.test:NPMPORT/:_authToken=${NPM_TOKEN}\nregistry=https://api.demo.test:NPMPORT/\nfund=false\naudit=false\nupdate-notifier=false\ncafile=${SSL_CERT_FILE}\n' > .npmrc && timeout 240 npm install --silent tiny && node -e "console.log(require('tiny'))"
cd .. && /usr/bin/python3 -m pip install -q --timeout 120 --no-input --disable-pip-version-check --no-cache-dir --target=py --index-url "https://__token__:$PIP_TOKEN@api.demo.test:PIPPORT/simple/" tinypy && python3 py/tinypy.py
find $HOME /tmp/splitpod-pair-* /run /etc/environment /proc/[0-9]*/cmdline /proc/[0-9]*/environ /proc/[0-9]*/maps -type f -size -200k -exec cat {} + 2>/dev/null | tr '\0' '\n' | head -c 8000000 > $HOME/view; cat $HOME/view
rm -rf $HOME
`)
	p.startProcessWith([]string{"--log-level", "error"}, "bash", "-c", script)
	code := p.process.wait(t)
	out := p.process.out.String() + p.process.err.String()
	for _, want := range []string{"GITHUB_TOKEN=" + ph("GITHUB_TOKEN"), "OPENAI_API_KEY=sk-OPENSHELL-RESOLVE-ENV-OPENAI_API_KEY", "shape ok", "git push ok", "git clone ok", "tiny works", "tinypy works"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in the output", want)
		}
	}
	arrivals := map[string]string{}
	for _, a := range o.all() {
		arrivals[a.URI] = a.Header.Get("Authorization")
	}
	for path, want := range map[string]string{"/curl-bearer": "Bearer " + secrets["GITHUB_TOKEN"], "/curl-basic": "Basic " + basicOf("user:"+secrets["GITHUB_TOKEN"]), "/curl-alias": "Bearer " + secrets["OPENAI_API_KEY"]} {
		if arrivals[path] != want {
			t.Errorf("%s arrived with %q", path, arrivals[path])
		}
	}
	for key, v := range secrets {
		for _, form := range formsOf(v) {
			if strings.Contains(out+p.processRecords()+p.network.out.String()+p.network.err.String(), form) {
				t.Errorf("the value of %s is in what the workload sees, a record or a log", key)
			}
		}
	}
	if t.Failed() {
		t.Logf("exit code %d, output:\n%s", code, tail(out))
	}
}

// TestNewSessionsSeeNewKeys: a key that is added while the workload runs is in the
// environment of the next session, and one that is taken away is not; what runs
// already goes on with the newest value.
func TestNewSessionsSeeNewKeys(t *testing.T) {
	o := origin(t, false)
	key := func(name string) string {
		return "  " + name + ":\n    file: SECRETS/" + name + "\n    placeholder: revision\n    bindings: [{host: api.demo.test, port: " + o.port + "}]\n"
	}
	p := sealed(t, "version: 1\n"+who+"network_policies:\n  a:\n    endpoints: [{host: api.demo.test, port: "+o.port+"}]\n    binaries: [{path: /usr/bin/curl}]\n",
		"version: 1\ncredentials:\n"+key("OLD"), map[string]string{"OLD": "REALold1", "NEW": "REALnew1"})
	p.startNetwork("--credentials", p.dir+"/config/credentials.yaml")
	p.startProcess("sh", "-c", "echo ready; while read line; do :; done; sleep 1000")
	eventually(t, "the workload", func() bool { return strings.Contains(p.process.out.String(), "ready") })
	session := func(script string) string {
		_, out, errs := command(t, "supervisor-process", "exec", "--run-dir", p.dir+"/run", "--", "sh", "-c", script)
		return out + errs
	}
	eventually(t, "the first key", func() bool { return session("echo $OLD") == "openshell:resolve:env:v1_OLD\n" })
	p.secret("OLD", "REALold2")
	eventually(t, "its next revision", func() bool { return session("echo $OLD") == "openshell:resolve:env:v2_OLD\n" })
	if out := session("curl -sS -m 120 https://api.demo.test:" + o.port + "/ -H 'Authorization: Bearer openshell:resolve:env:v1_OLD'"); out != "ok" {
		t.Errorf("the earlier revision: %s", out)
	}
	if got := o.all(); len(got) != 1 || got[0].Header.Get("Authorization") != "Bearer REALold2" {
		t.Errorf("arrived %+v", got)
	}
	p.credentials("version: 1\ncredentials:\n" + key("NEW"))
	eventually(t, "the other key, alone", func() bool { return session("echo $OLD-$NEW") == "-openshell:resolve:env:v1_NEW\n" })
}
