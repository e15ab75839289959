package observability_test

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// reference reads docs/metrics.md, which is generated: names of metrics with their
// types and labels.
func reference(t *testing.T) map[string]map[string]bool {
	t.Helper()
	page, err := os.ReadFile("../../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]map[string]bool)
	for _, row := range regexp.MustCompile("(?m)^\\| `(splitpod_[a-z_]+)` \\| \\w+ \\| ([^|]*) \\|").FindAllStringSubmatch(string(page), -1) {
		if out[row[1]] == nil {
			out[row[1]] = map[string]bool{"namespace": true, "pod": true}
		}
		for _, l := range regexp.MustCompile("`(\\w+)`").FindAllStringSubmatch(row[2], -1) {
			out[row[1]][l[1]] = true
		}
	}
	if len(out) < 25 {
		t.Fatalf("only %d metrics in the reference", len(out))
	}
	return out
}

var (
	name     = regexp.MustCompile(`splitpod_[a-z_]+`)
	selector = regexp.MustCompile(`(splitpod_[a-z_]+)\{([^}]*)\}`)
	matcher  = regexp.MustCompile(`(\w+)\s*(?:=~|!~|!=|=)`)
	grouping = regexp.MustCompile(`by \(([^)]*)\)`)
)

// check returns what an expression names that is not there.
func check(expr string, known map[string]map[string]bool) (problems []string) {
	names := name.FindAllString(expr, -1)
	if len(names) == 0 {
		problems = append(problems, "no metric")
	}
	labels := make(map[string]bool)
	for _, n := range names {
		if known[n] == nil {
			problems = append(problems, n)
		}
		for l := range known[n] {
			labels[l] = true
		}
	}
	for _, s := range selector.FindAllStringSubmatch(expr, -1) {
		for _, m := range matcher.FindAllStringSubmatch(s[2], -1) {
			if !known[s[1]][m[1]] {
				problems = append(problems, s[1]+" has no label "+m[1])
			}
		}
	}
	for _, g := range grouping.FindAllStringSubmatch(expr, -1) {
		for l := range strings.SplitSeq(g[1], ",") {
			if l = strings.TrimSpace(l); !labels[l] {
				problems = append(problems, "nothing has the label "+l)
			}
		}
	}
	for _, pair := range []string{"()", "{}", "[]"} {
		if strings.Count(expr, pair[:1]) != strings.Count(expr, pair[1:]) {
			problems = append(problems, "brackets")
		}
	}
	return problems
}

func TestTheDashboardShowsMetricsThatExist(t *testing.T) {
	data, err := os.ReadFile("dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Title  string
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(data, &d); err != nil {
		t.Fatal(err)
	}
	known, expressions := reference(t), 0
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			expressions++
			if problems := check(target.Expr, known); len(problems) > 0 {
				t.Errorf("%s: %s: %v", p.Title, target.Expr, problems)
			}
		}
	}
	if expressions < 15 {
		t.Errorf("only %d expressions", expressions)
	}
}

func TestTheAlertsAreOnMetricsThatExist(t *testing.T) {
	f, err := os.Open("rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var rules struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For    string
				Labels, Annotations map[string]string
			}
		}
	}
	d := yaml.NewDecoder(f)
	d.KnownFields(true)
	if err := d.Decode(&rules); err != nil {
		t.Fatal(err)
	}
	runbook, err := os.ReadFile("../../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := make(map[string]string)
	for _, row := range regexp.MustCompile(`(?m)^\| (Splitpod\w+) \| [^|]+ \| ([^|]+) \|$`).FindAllStringSubmatch(string(runbook), -1) {
		rows[row[1]] = row[2]
	}
	known, seen := reference(t), []string{}
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			if problems := check(r.Expr, known); len(problems) > 0 {
				t.Errorf("%s: %s: %v", r.Alert, r.Expr, problems)
			}
			if !slices.Contains([]string{"critical", "warning", "info"}, r.Labels["severity"]) || r.Annotations["summary"] == "" || slices.Contains(seen, r.Alert) {
				t.Errorf("%s: no severity, no summary, or twice", r.Alert)
			}
			if strings.TrimSpace(rows[r.Alert]) == "" {
				t.Errorf("%s: docs/operations.md does not say what to do", r.Alert)
			}
			delete(rows, r.Alert)
			seen = append(seen, r.Alert)
		}
	}
	for alert := range rows {
		t.Errorf("docs/operations.md has a row for %s, which is no alert", alert)
	}
	if len(seen) < 10 {
		t.Errorf("only %d alerts", len(seen))
	}
}

func TestAMissingMetricIsFound(t *testing.T) {
	known := reference(t)
	for _, expr := range []string{
		"splitpod_nothing_total", "1 > 0", `splitpod_denials_total{host="x"}`, "sum by (path) (splitpod_denials_total)", "sum(splitpod_ready", "rate(splitpod_ready[5m)",
	} {
		if len(check(expr, known)) == 0 {
			t.Errorf("%s passes", expr)
		}
	}
	if problems := check(`sum by (reason, pod) (rate(splitpod_denials_total{reason="internal_error"}[5m]))`, known); len(problems) > 0 {
		t.Error(problems)
	}
}
