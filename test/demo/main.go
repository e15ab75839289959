// Command demo shows a real workload that reaches exactly what its policy says: it
// makes a small world without a route anywhere, starts origins in it, runs curl,
// git and python in the sandbox, and compares what happened with what the policy
// promises.
//
// It answers the threat of a demonstration that is only a claim: every line of its
// table is computed, and one that is not as promised makes it fail.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/splitpod/splitpod/test/world"
)

// line is one thing the workload tries.
type line struct {
	what    string
	promise string
	command []string
	// kept says why the promise is not kept; empty: it is.
	kept func(result) string
}

// result is what a command in the sandbox did.
type result struct {
	code    int
	output  string // of the workload, both streams
	records string // of both daemons
}

func main() {
	if err := world.Enter(); err != nil {
		fail(err)
	}
	if err := run(); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "demo:", err)
	os.Exit(1)
}

func run() error {
	dir, err := os.MkdirTemp("", "splitpod-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	origins, err := world.Start(dir)
	if err != nil {
		return err
	}
	defer origins.Close()

	if err := errors.Join(makeCredentials(dir, origins.Mux), makeModel(dir, origins.Mux)); err != nil {
		return err
	}

	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "the workload tries\tthe policy promises\tit happened")
	broken := 0
	for _, l := range lines() {
		r, err := sandbox(origins.CAFile, dir, l.command)
		if err != nil {
			return fmt.Errorf("%s: %w", l.what, err)
		}
		outcome := "yes"
		if why := l.kept(r); why != "" {
			outcome = "NO: " + why
			broken++
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", l.what, l.promise, outcome)
	}
	w.Flush()
	if broken > 0 {
		return fmt.Errorf("%d lines are not as promised", broken)
	}
	return nil
}

func lines() []line {
	curl := func(args ...string) []string {
		return append([]string{"curl", "-sS", "-m", "10"}, args...)
	}
	return []line{
		{"curl https://api.demo.test/", "allowed: host, port and program are in the policy",
			curl("https://api.demo.test/"), succeeds("hello from api.demo.test")},
		{"git clone https://git.demo.test/repo.git", "allowed: git and its helpers",
			[]string{"sh", "-c", "d=$(mktemp -d) && git clone -q https://git.demo.test/repo.git $d/r && cat $d/r/README"}, succeeds("hello")},
		{"curl https://other.demo.test/", "denied: no rule names the host",
			curl("https://other.demo.test/"), denied("policy_denied")},
		{"curl https://api.demo.test:8443/", "denied: the rule names port 443",
			curl("https://api.demo.test:8443/"), denied("policy_denied")},
		{"python3 https://api.demo.test/", "denied: the rule names curl",
			[]string{"python3", "-c", "import urllib.request as u; u.urlopen('https://api.demo.test/')"}, denied("policy_denied")},
		{"curl https://a.wild.demo.test/", "denied: a wildcard may not lead to a private address",
			curl("https://a.wild.demo.test/"), denied("ssrf_denied")},
		{"curl --noproxy '*' http://" + world.Address + "/", "refused at once and recorded: there is no way around the proxy",
			curl("--noproxy", "*", "http://"+world.Address+"/"), bypassRefused},
		{"curl -H \"Authorization: Bearer $DEMO_TOKEN\" https://api.demo.test/secret", "the workload has a placeholder, the origin gets the token",
			[]string{"sh", "-c", `echo "the workload has $DEMO_TOKEN"; curl -sS -m 10 -H "Authorization: Bearer $DEMO_TOKEN" https://api.demo.test/secret`}, injected},
		{"curl https://inference.local/v1/chat/completions", "the workload names no provider, model or key; the operator's are used",
			curl("-H", "Authorization: Bearer none", "-d", `{"model":"any","messages":[]}`, "https://inference.local/v1/chat/completions"), routed},
		{"sh -c 'exit 7'", "the workload's own exit code comes through",
			[]string{"sh", "-c", "exit 7"}, exits(7)},
	}
}

func succeeds(text string) func(result) string {
	return func(r result) string {
		if r.code != 0 || !strings.Contains(r.output, text) {
			return fmt.Sprintf("exit code %d, output %q", r.code, r.output)
		}
		return ""
	}
}

func denied(reason string) func(result) string {
	return func(r result) string {
		switch {
		case r.code == 0:
			return "it succeeded"
		case !strings.Contains(r.records, `"reason":"`+reason+`"`):
			return "no record says " + reason
		}
		return ""
	}
}

func bypassRefused(r result) string {
	switch {
	case r.code == 0:
		return "it succeeded"
	case !strings.Contains(r.output, "refused") && !strings.Contains(r.output, "Failed to connect") && !strings.Contains(r.output, "Couldn't connect"):
		return fmt.Sprintf("not refused at once: %q", r.output)
	case !strings.Contains(r.records, `"reason":"bypass"`):
		return "no record of it"
	}
	return ""
}

// token is a secret that the workload uses and never has.
const token = "demo-token-9f86d081884c7d65"

const arrived = "the origin got the token"

// networkUID is the network daemon's user in run.sh.
const networkUID = 65532

// makeCredentials writes the secret and what it may be used for, and an origin that
// knows it.
func makeCredentials(dir string, mux *http.ServeMux) error {
	mux.HandleFunc("/secret", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+token {
			http.Error(w, "the origin got something else", http.StatusUnauthorized)
			return
		}
		fmt.Fprintln(w, arrived)
	})
	secret := filepath.Join(dir, "token")
	file := "version: 1\ncredentials:\n  DEMO_TOKEN:\n    file: " + secret + "\n    bindings: [{host: api.demo.test, port: 443, path: /secret}]\n"
	return errors.Join(os.WriteFile(secret, []byte(token+"\n"), 0o400), os.Chown(secret, networkUID, networkUID),
		os.WriteFile(filepath.Join(dir, "credentials.yaml"), []byte(file), 0o400))
}

func injected(r result) string {
	switch {
	case !strings.Contains(r.output, "the workload has openshell:resolve:env:DEMO_TOKEN") || !strings.Contains(r.output, arrived):
		return fmt.Sprintf("exit code %d, output %q", r.code, r.output)
	case strings.Contains(r.output+r.records, token):
		return "the token is in the output or a record"
	case !strings.Contains(r.records, "credentials used: DEMO_TOKEN (1)"):
		return "no record names the credential"
	}
	return ""
}

// model is what the operator's inference route asks for.
const model = "demo-model"

const answered = "the model answers"

// makeModel is a provider that knows the token, and the route that leads to it.
func makeModel(dir string, mux *http.ServeMux) error {
	mux.HandleFunc("POST /v1/chat/completions", func(w http.ResponseWriter, r *http.Request) {
		var ask struct{ Model string }
		if err := json.NewDecoder(r.Body).Decode(&ask); err != nil || ask.Model != model || r.Header.Get("Authorization") != "Bearer "+token {
			http.Error(w, "the provider got something else", http.StatusUnauthorized)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"choices":[{"message":{"content":%q}}],"usage":{"prompt_tokens":3,"completion_tokens":2}}`+"\n", answered)
	})
	file := "routes: [{name: demo, endpoint: \"https://api.demo.test\", model: " + model + ", api_key_file: " + filepath.Join(dir, "token") + "}]\n"
	return os.WriteFile(filepath.Join(dir, "routes.yaml"), []byte(file), 0o400)
}

func routed(r result) string {
	switch {
	case r.code != 0 || !strings.Contains(r.output, answered):
		return fmt.Sprintf("exit code %d, output %q", r.code, r.output)
	case strings.Contains(r.output+r.records, token):
		return "the key is in the output or a record"
	case !strings.Contains(r.records, `"ai_model":{"name":"`+model+`"`):
		return "no record names the model"
	}
	return ""
}

func exits(code int) func(result) string {
	return func(r result) string {
		if r.code != code {
			return fmt.Sprintf("exit code %d", r.code)
		}
		return ""
	}
}

// sandbox runs a command under deploy/local/run.sh with the demo policy, and the credentials
// and inference routes of a folder.
func sandbox(roots, secrets string, command []string) (result, error) {
	dir, err := os.MkdirTemp("", "splitpod-demo-run-")
	if err != nil {
		return result{}, err
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command("deploy/local/run.sh", append([]string{"deploy/local/policies/demo.yaml"}, command...)...)
	cmd.Env = append(os.Environ(), "SPLITPOD_LOCAL_DIR="+dir, "SPLITPOD_LOCAL_UPSTREAM_ROOTS="+roots, "SPLITPOD_LOCAL_CREDENTIALS="+secrets+"/credentials.yaml", "SPLITPOD_LOCAL_INFERENCE_ROUTES="+secrets+"/routes.yaml")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		return result{}, err
	}
	r := result{code: cmd.ProcessState.ExitCode(), output: out.String()}
	for _, name := range []string{"network.records", "process.records"} {
		data, _ := os.ReadFile(filepath.Join(dir, name))
		r.records += string(data)
	}
	return r, nil
}
