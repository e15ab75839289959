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

// metrics is what may be named: metrics with their labels.
type metrics map[string]map[string]bool

// reference reads docs/metrics.md, which is generated, and adds what Prometheus itself
// and the client library have.
func reference(t *testing.T) metrics {
	t.Helper()
	page, err := os.ReadFile("../../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	out := make(metrics)
	out.add("up")
	out.add("process_start_time_seconds")
	for _, row := range regexp.MustCompile("(?m)^\\| `(splitpod_[a-z0-9_]+)` \\| (\\w+) \\| ([^|]*) \\|").FindAllStringSubmatch(string(page), -1) {
		labels := regexp.MustCompile("`(\\w+)`").FindAllStringSubmatch(row[3], -1)
		out.add(row[1], labels...)
		if row[2] == "histogram" {
			out.add(row[1]+"_bucket", append(labels, []string{"", "le"})...)
		}
	}
	if len(out) < 45 {
		t.Fatalf("only %d metrics in the reference", len(out))
	}
	return out
}

// add makes a metric known, with its labels and those that a scrape puts on it.
func (k metrics) add(name string, labels ...[]string) {
	if k[name] == nil {
		k[name] = map[string]bool{"namespace": true, "pod": true, "instance": true}
	}
	for _, l := range labels {
		k[name][l[1]] = true
	}
}

var (
	name     = regexp.MustCompile(`\b(?:splitpod_[a-z0-9_]+|process_[a-z_]+|up)\b`)
	selector = regexp.MustCompile(`(splitpod_[a-z0-9_]+|process_[a-z_]+)\{([^}]*)\}`)
	matcher  = regexp.MustCompile(`(\w+)\s*(?:=~|!~|!=|=)`)
	grouping = regexp.MustCompile(`(?:by|without|on|ignoring|group_left|group_right) \(([^)]*)\)`)
	quoted   = regexp.MustCompile(`"[^"]*"`)
)

// check returns what an expression names that is not there.
func check(expr string, known metrics) (problems []string) {
	names := name.FindAllString(quoted.ReplaceAllString(expr, ""), -1)
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
	return problems
}

// dashboard is the part of dashboard.json that asks.
type dashboard struct {
	Title      string
	Templating struct{ List []struct{ Query string } }
	Panels     []struct {
		Title   string
		Targets []struct{ Expr string }
	}
}

func readDashboard(t *testing.T) (d dashboard) {
	t.Helper()
	data, err := os.ReadFile("dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestTheDashboardShowsMetricsThatExist(t *testing.T) {
	d, known, expressions := readDashboard(t), reference(t), 0
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			expressions++
			if problems := check(target.Expr, known); len(problems) > 0 {
				t.Errorf("%s: %s: %v", p.Title, target.Expr, problems)
			}
		}
	}
	for _, v := range d.Templating.List {
		for _, n := range name.FindAllString(v.Query, -1) {
			if known[n] == nil {
				t.Errorf("a variable is made of %s", n)
			}
		}
	}
	if expressions < 45 {
		t.Errorf("only %d expressions", expressions)
	}
}

// TestTheDashboardShowsWhatOperatorsAskFirst: every metric but those of the build is on
// some panel.
func TestTheDashboardShowsWhatOperatorsAskFirst(t *testing.T) {
	shown := make(map[string]bool)
	for _, p := range readDashboard(t).Panels {
		for _, target := range p.Targets {
			for _, n := range name.FindAllString(target.Expr, -1) {
				shown[n] = true
			}
		}
	}
	elsewhere := map[string]string{
		"splitpod_connections_allowed_total": "decisions have it", "splitpod_records_total": "decisions have what is of interest", "up": "every Prometheus's own dashboards",
	}
	for n := range reference(t) {
		if !shown[n] && elsewhere[n] == "" {
			t.Errorf("no panel shows %s", n)
		}
	}
}

// rules is rules.yaml.
type rules struct {
	Groups []struct {
		Name  string
		Rules []struct {
			Alert, Expr, For    string
			Labels, Annotations map[string]string
		}
	}
}

func readRules(t *testing.T) (r rules) {
	t.Helper()
	f, err := os.Open("rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d := yaml.NewDecoder(f)
	d.KnownFields(true)
	if err := d.Decode(&r); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestTheAlertsAreOnMetricsThatExist(t *testing.T) {
	rules := readRules(t)
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
		"splitpod_nothing_total", "1 > 0", `splitpod_denials_total{host="x"}`, "sum by (path) (splitpod_denials_total)",
		"splitpod_ready * on (host) group_left (component) splitpod_build_info", "splitpod_dial_duration_seconds_sum_of", `splitpod_ready{le="1"}`,
	} {
		if len(check(expr, known)) == 0 {
			t.Errorf("%s passes", expr)
		}
	}
	if problems := check(`sum by (reason, pod) (rate(splitpod_denials_total{reason="internal_error"}[5m]))`, known); len(problems) > 0 {
		t.Error(problems)
	}
}
