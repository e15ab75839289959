package observability_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/splitpod/splitpod/test/need"
)

// promtool runs it, and returns what it prints.
func promtool(t *testing.T, args ...string) (out string, ok bool) {
	t.Helper()
	b, err := exec.Command(need.Program(t, "promtool"), args...).CombinedOutput()
	return string(b), err == nil
}

// scenarios is a file of testdata, as far as this test looks.
type scenarios struct {
	Tests []struct {
		Name   string
		Series []struct{ Series string } `yaml:"input_series"`
		Alerts []struct {
			Name string `yaml:"alertname"`
			Want []struct {
				Labels, Annotations map[string]string
			} `yaml:"exp_alerts"`
		} `yaml:"alert_rule_test"`
	}
}

func scenarioFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d files of scenarios: %v", len(files), err)
	}
	return files
}

// TestTheAlertsFireWhenTheyShould lets Prometheus evaluate the rules.
func TestTheAlertsFireWhenTheyShould(t *testing.T) {
	if out, ok := promtool(t, append([]string{"test", "rules"}, scenarioFiles(t)...)...); !ok {
		t.Errorf("%s", out)
	}
}

// TestEveryAlertHasScenarios: one in which it fires, for one pod and not for another, and
// one in which it is quiet although what it is about is there.
func TestEveryAlertHasScenarios(t *testing.T) {
	fires, quiet := make(map[string]int), make(map[string]int)
	exprs := make(map[string]string)
	for _, g := range readRules(t).Groups {
		for _, r := range g.Rules {
			exprs[r.Alert] = r.Expr
		}
	}
	for _, file := range scenarioFiles(t) {
		var s scenarios
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.Unmarshal(data, &s); err != nil {
			t.Fatal(err)
		}
		for _, test := range s.Tests {
			pods, about := make(map[string]bool), ""
			for _, in := range test.Series {
				metric, rest, _ := strings.Cut(in.Series, "{")
				_, pod, _ := strings.Cut(rest, `pod="`)
				pods[pod[:1]], about = true, about+" "+metric+" "
			}
			if len(pods) < 2 {
				t.Errorf("%s: %q has only one pod", file, test.Name)
			}
			for _, a := range test.Alerts {
				if exprs[a.Name] == "" {
					t.Errorf("%s: there is no alert %s", file, a.Name)
				}
				if len(a.Want) > 0 {
					fires[a.Name]++
				}
				for _, n := range name.FindAllString(exprs[a.Name], -1) {
					if len(a.Want) == 0 && strings.Contains(about, " "+n+" ") {
						quiet[a.Name]++
						break
					}
				}
			}
		}
	}
	for alert := range exprs {
		if fires[alert] == 0 || quiet[alert] == 0 {
			t.Errorf("%s: %d scenarios in which it fires, %d in which it is quiet", alert, fires[alert], quiet[alert])
		}
	}
}

// TestEveryExpressionIsPromQL: those of the dashboard too, with its variables filled in.
func TestEveryExpressionIsPromQL(t *testing.T) {
	type rule struct{ Record, Expr string }
	var all []rule
	for _, p := range readDashboard(t).Panels {
		for i, target := range p.Targets {
			expr := strings.NewReplacer("$__rate_interval", "5m", "$namespace", ".*", "$pod", ".*").Replace(target.Expr)
			if strings.Contains(expr, "$") {
				t.Errorf("%s has a variable that this test does not know: %s", p.Title, expr)
			}
			all = append(all, rule{fmt.Sprintf("panel:%d:%d", len(all), i), expr})
		}
	}
	if out, ok := promtool(t, "check", "rules", "rules.yaml", write(t, all)); !ok || !strings.Contains(out, fmt.Sprintf("SUCCESS: %d rules found", len(all))) {
		t.Errorf("%s", out)
	}
	if out, ok := promtool(t, "check", "rules", write(t, append(all, rule{"panel:broken", "rate(splitpod_ready[5m)"}))); ok {
		t.Errorf("what is no PromQL passes: %s", out)
	}
}

// write makes a file of recording rules.
func write(t *testing.T, all any) string {
	t.Helper()
	data, err := yaml.Marshal(map[string]any{"groups": []any{map[string]any{"name": "panels", "rules": all}}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "panels.yaml")
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}
