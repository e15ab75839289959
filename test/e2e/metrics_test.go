package e2e_test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	gatewayv1 "github.com/splitpod/splitpod/api/gateway/v1"
	"github.com/splitpod/splitpod/test/need"
	"github.com/splitpod/splitpod/test/world"
)

const observability = "../../deploy/k8s/observability/"

// TestWhatIsWatchedIsExported: after one of everything, promtool finds no fault with what
// both daemons export, every metric of the reference is there, every panel shows
// something, and every series that an alert is about exists.
func TestWhatIsWatchedIsExported(t *testing.T) {
	need.Program(t, "promtool")
	p := sealed(t, policyText, "version: 1\ncredentials:\n  TOKEN:\n    file: SECRETS/TOKEN\n    bindings: [{host: api.demo.test, port: 443}]\n", map[string]string{"TOKEN": "REALtoken1"})
	p.startProcessWith([]string{"--admin-listen", "127.0.0.1:19902"}, "sh", "-c", `
		curl -sS https://api.demo.test/ -o /dev/null
		curl -sS https://evil.demo.test/
		curl -sS https://inference.local/v1/chat/completions -d '{}' -o /dev/null
		curl -sS --noproxy '*' -m 5 http://`+world.Address+`/
		echo done; sleep 1000`)
	var stranger net.Conn
	eventually(t, "the process daemon's socket", func() (ok bool) {
		var err error
		stranger, err = net.Dial("unix", p.dir+"/run/process.sock") // as root, which is not the network daemon's user
		return err == nil
	})
	defer stranger.Close()
	g, _, flags := governed(t, p)
	g.Configure(configOf(1, "api.demo.test"))
	p.startNetwork(append(flags, "--admin-listen", ":"+adminPort, "--credentials", p.dir+"/config/credentials.yaml", "--otlp-endpoint", "http://127.0.0.1:1",
		"--inference-routes", p.routes(routesOf(startProvider(t))))...)
	eventually(t, "the workload", func() bool { return strings.Contains(p.process.out.String(), "done") })
	fetch(t, "http://"+world.Address+":"+adminPort+"/view.json") // refused
	process := exported(t, "19902", `splitpod_bypass_refused_total{protocol="tcp"} `, `splitpod_findings_total{reason="peer_refused"} `, "splitpod_ready 1")
	// operations.md has operators ask the process daemon by the network daemon's program.
	if code, out, errs := command(t, "supervisor-network", "healthcheck", "--url", "http://127.0.0.1:19902/readyz?verbose"); code != 0 || !strings.Contains(out, "fence") {
		t.Errorf("healthcheck of the process daemon: exit code %d, output %q, errors %q", code, out, errs)
	}
	g.Configure(&gatewayv1.GetSandboxConfigResponse{})
	p.damageFence()
	p.process.wait(t)
	network := exported(t, adminPort, `splitpod_peer_findings_total{reason="fence_damaged"} 1`, `splitpod_findings_total{reason="policy_invalid"} `, `splitpod_admin_refused_total{reason="admin_refused"} 1`,
		"splitpod_inference_calls_total{", "splitpod_inference_tokens_total{")

	for daemon, text := range map[string]string{"supervisor-network": network, "supervisor-process": process} {
		lint := exec.Command("promtool", "check", "metrics")
		lint.Stdin = strings.NewReader(text)
		if out, err := lint.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: promtool: %v: %s", daemon, err, out)
		}
		for _, name := range referenceOf(t, daemon) {
			if !regexp.MustCompile(`(?m)^` + name + `(?:_count)?[{ ]`).MatchString(text) {
				t.Errorf("%s does not export %s", daemon, name)
			}
		}
	}
	evaluate(t, append(panels(t), watched(t)...), append(series(t, network, adminPort), series(t, process, "19902")...))
}

// TestADamagedFenceEndsTheSandbox, and the daemon that stays goes on saying so: the other
// one is gone before anybody asks it.
func TestADamagedFenceEndsTheSandbox(t *testing.T) {
	p := newPair(t, policyText)
	p.startNetwork("--admin-listen", "127.0.0.1:"+adminPort)
	mark := fmt.Sprintf("7%d", os.Getpid())
	p.startProcess("sh", "-c", "setsid sleep "+mark+" & sleep "+mark)
	eventually(t, "both sleepers", func() bool { return countProcesses(t, "sleep", mark) == 2 })
	p.damageFence()
	if code := p.process.wait(t); code != 1 { // it was lost: its end is not its own
		t.Errorf("exit code %d", code)
	}
	eventually(t, "the end of every workload process", func() bool { return countProcesses(t, "sleep", mark) == 0 })
	exported(t, adminPort, `splitpod_peer_findings_total{reason="fence_damaged"} 1`, "splitpod_peer_attached 0")
	for daemon, records := range map[string]func() string{"network": p.network.out.String, "process": p.processRecords} {
		eventually(t, "a record of the "+daemon+" daemon", func() bool {
			return strings.Contains(records(), `"severity":"Critical"`) && strings.Contains(records(), `"reason":"fence_damaged"`)
		})
	}
}

// damageFence adds a table in the workload's namespace, as somebody with a right there
// could who must not have it. It is found within a second.
func (p *pair) damageFence() {
	p.t.Helper()
	own, err := os.Readlink("/proc/self/ns/net")
	must(p.t, err)
	for _, pid := range childrenOf(p.process.cmd.Process.Pid) {
		if ns, err := os.Readlink("/proc/" + pid + "/ns/net"); err != nil || ns == own {
			continue
		}
		if out, err := exec.Command("nsenter", "-t", pid, "-n", need.Program(p.t, "nft"), "add table ip other").CombinedOutput(); err != nil {
			p.t.Fatalf("%v: %s", err, out)
		}
		return
	}
	p.t.Fatal("the process daemon has no child in another namespace")
}

// exported is what a daemon exports once every line is there that begins so.
func exported(t *testing.T, port string, lines ...string) (text string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%q at %s", lines, port), func() bool {
		_, body := fetch(t, "http://127.0.0.1:"+port+"/metrics")
		text = string(body)
		for _, l := range lines {
			if !strings.Contains(text, "\n"+l) {
				return false
			}
		}
		return true
	})
	return text
}

// referenceOf are the metrics of a daemon by docs/metrics.md.
func referenceOf(t *testing.T, daemon string) (names []string) {
	t.Helper()
	page, err := os.ReadFile("../../docs/metrics.md")
	must(t, err)
	_, section, _ := strings.Cut(string(page), "\n## "+daemon+"\n")
	section, _, _ = strings.Cut(section, "\n## ")
	for _, m := range regexp.MustCompile("(?m)^\\| `(\\w+)`").FindAllStringSubmatch(section, -1) {
		names = append(names, m[1])
	}
	if len(names) < 14 {
		t.Fatalf("%s has only %d metrics", daemon, len(names))
	}
	return names
}

// panels are the dashboard's expressions.
func panels(t *testing.T) (exprs []string) {
	t.Helper()
	data, err := os.ReadFile(observability + "dashboard.json")
	must(t, err)
	var d struct {
		Panels []struct{ Targets []struct{ Expr string } }
	}
	must(t, json.Unmarshal(data, &d))
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			exprs = append(exprs, strings.NewReplacer("$__rate_interval", "5m", "$namespace", "ns", "$pod", "a|b").Replace(target.Expr))
		}
	}
	if len(exprs) < 45 {
		t.Fatalf("only %d expressions", len(exprs))
	}
	return exprs
}

// watched are the selectors in the alerts' expressions; for alternatives, each.
func watched(t *testing.T) (selectors []string) {
	t.Helper()
	data, err := os.ReadFile(observability + "rules.yaml")
	must(t, err)
	var rules struct {
		Groups []struct{ Rules []struct{ Expr string } }
	}
	must(t, yaml.Unmarshal(data, &rules))
	choice := regexp.MustCompile(`^(.*)=~"([^"]*)"(.*)$`)
	for _, r := range rules.Groups[0].Rules {
		for _, s := range regexp.MustCompile(`splitpod_\w+(?:\{[^}]*\})?`).FindAllString(r.Expr, -1) {
			m := choice.FindStringSubmatch(s)
			if m == nil {
				selectors = append(selectors, s)
				continue
			}
			for _, one := range strings.Split(m[2], "|") {
				selectors = append(selectors, m[1]+`="`+one+`"`+m[3])
			}
		}
	}
	if len(selectors) < 20 {
		t.Fatalf("only %d selectors", len(selectors))
	}
	return selectors
}

type input struct{ Series, Values string }

// series are a daemon's as Prometheus has them of two pods, and on from what they are:
// counters go on growing as they have, the rest stays.
func series(t *testing.T, text, port string) (out []input) {
	t.Helper()
	types := make(map[string]string)
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if f := strings.Fields(line); f[0] == "#" {
			if f[1] == "TYPE" {
				types[f[2]] = f[3]
			}
			continue
		}
		i := strings.LastIndex(line, " ")
		v, err := strconv.ParseFloat(line[i+1:], 64)
		must(t, err)
		name, labels, _ := strings.Cut(line[:i], "{")
		value, step := strconv.FormatFloat(v, 'f', -1, 64), "0"
		if types[name] == "counter" || types[regexp.MustCompile(`_(?:bucket|count|sum)$`).ReplaceAllString(name, "")] == "histogram" {
			step = value
		}
		for _, pod := range []string{"a", "b"} {
			out = append(out, input{
				fmt.Sprintf(`%s{namespace="ns",pod="%s",instance="%s:%s",%s}`, name, pod, pod, port, strings.TrimSuffix(labels, "}")),
				value + "+" + step + "x20",
			})
		}
	}
	return out
}

// evaluate lets Prometheus evaluate expressions, each of which must find something.
func evaluate(t *testing.T, exprs []string, in []input) {
	t.Helper()
	type sample struct {
		Labels string
		Value  int
	}
	type query struct {
		Expr    string
		At      string   `yaml:"eval_time"`
		Samples []sample `yaml:"exp_samples"`
	}
	var queries []query
	for _, expr := range exprs {
		queries = append(queries, query{"count(" + expr + ") > bool 0", "10m", []sample{{"{}", 1}}})
	}
	data, err := yaml.Marshal(map[string]any{"tests": []any{map[string]any{"interval": "30s", "input_series": in, "promql_expr_test": queries}}})
	must(t, err)
	path := filepath.Join(t.TempDir(), "watched.yaml")
	must(t, os.WriteFile(path, data, 0o644))
	if out, err := exec.Command("promtool", "test", "rules", path).CombinedOutput(); err != nil {
		t.Errorf("promtool: %v: %s", err, out)
	}
}
