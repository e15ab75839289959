// Package docs_test keeps the pages true: what they list is compared with the code,
// and every policy they show is read.
package docs_test

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/ocsf"
	"github.com/splitpod/splitpod/pkg/core/policy"
)

// TestTroubleshootingKnowsEveryReason: each has a row, and every row says what to do.
func TestTroubleshootingKnowsEveryReason(t *testing.T) {
	page, err := os.ReadFile("troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	explained := make(map[string]bool)
	for _, row := range regexp.MustCompile("(?m)^\\| (`[^|]*) \\| ([^|]*) \\|(.*)$").FindAllStringSubmatch(string(page), -1) {
		for _, m := range regexp.MustCompile("`([a-z0-9_]+)`").FindAllStringSubmatch(row[1], -1) {
			explained[m[1]] = true
			if strings.Trim(row[3], " |") == "" && !happens[m[1]] {
				t.Errorf("troubleshooting.md does not say what to do about %s", m[1])
			}
		}
	}
	reasons := append(core.Reasons(), core.EventReasons()...)
	if len(reasons) < 60 || len(explained) < 50 {
		t.Fatalf("%d reasons, %d of them explained", len(reasons), len(explained))
	}
	for _, r := range reasons {
		if !explained[string(r)] {
			t.Errorf("troubleshooting.md does not explain %s", r)
		}
		delete(explained, string(r))
	}
	for reason := range explained {
		t.Errorf("troubleshooting.md explains %s, which no record has", reason)
	}
}

// happens are the reasons of what happens in every sandbox, and needs nobody.
var happens = map[string]bool{"allowed": true, "confined": true, "launched": true, "exited": true, "started": true, "stopped": true}

// TestEveryReadinessCheckHasALine, and no line is of a check that is not there.
func TestEveryReadinessCheckHasALine(t *testing.T) {
	page, err := os.ReadFile("operations.md")
	if err != nil {
		t.Fatal(err)
	}
	lines := make(map[string]bool)
	for _, row := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (?:network|process) daemon \\| [^|]+ \\| [^|]+ \\|$").FindAllStringSubmatch(string(page), -1) {
		lines[row[1]] = true
	}
	checks := make(map[string]bool)
	for _, file := range []string{"supervisor-network/internal/app/health.go", "supervisor-network/internal/app/state.go", "supervisor-process/internal/app/health.go"} {
		code, err := os.ReadFile("../cmd/" + file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`\bName: "(\w+)"`).FindAllStringSubmatch(string(code), -1) {
			checks[m[1]] = true
		}
	}
	if len(checks) < 9 || !maps.Equal(lines, checks) {
		t.Errorf("operations.md has lines of %v, the code checks %v", slices.Sorted(maps.Keys(lines)), slices.Sorted(maps.Keys(checks)))
	}
}

// TestTheTableOfRecordsIsTheEncoders: every class has a row, and every reason on the page
// becomes a record of the class and a line of the kind that its row says. A reason that
// is not on the page is a finding's, and its record says what to do.
func TestTheTableOfRecordsIsTheEncoders(t *testing.T) {
	page, err := os.ReadFile("records.md")
	if err != nil {
		t.Fatal(err)
	}
	// How the daemons make events of each class.
	made := map[string]core.Event{
		"4001": {Kind: core.EventLifecycle, Stage: core.StageGateway},
		"4007": {Kind: core.EventLifecycle, Stage: core.StageSSH}, "1007": {Kind: core.EventWorkload, Stage: core.StageLaunch},
		"5019": {Kind: core.EventLifecycle, Stage: core.StageConfig}, "6002": {Kind: core.EventLifecycle, Stage: core.StageControl},
		"6003": {Kind: core.EventLifecycle, Stage: core.StageAPI},
	}
	x := ocsf.NewEncoder(ocsf.Context{})
	classes, reasons, placed := make(map[string]bool), 0, make(map[core.Reason]bool)
	for _, row := range regexp.MustCompile("(?m)^\\| (\\d+) [A-Z][^|]* \\| `([A-Z]+)[^|]* \\| (.*) \\|$").FindAllStringSubmatch(string(page), -1) {
		classes[row[1]] = true
		for _, r := range core.EventReasons() {
			ev, ok := made[row[1]]
			if !ok || !strings.Contains(row[3], "`"+string(r)+"`") {
				continue
			}
			reasons++
			placed[r] = true
			ev.Reason = r
			if record := string(x.Append(nil, &ev)); !strings.HasPrefix(record, `{"class_uid":`+row[1]+`,`) {
				t.Errorf("%s is %s", r, record)
			}
			if line := string(x.AppendText(nil, &ev)); !strings.Contains(line, " OCSF "+row[2]+":") {
				t.Errorf("%s is %s", r, line)
			}
		}
	}
	if want := []string{"0", "1007", "2004", "4001", "4002", "4007", "5019", "6002", "6003"}; !slices.Equal(slices.Sorted(maps.Keys(classes)), want) {
		t.Errorf("the classes are %v", slices.Sorted(maps.Keys(classes)))
	}
	if reasons < 25 {
		t.Errorf("only %d reasons were read", reasons)
	}
	for _, r := range core.EventReasons() {
		finding := core.Event{Kind: core.EventFinding, Reason: r}
		if record := string(x.Append(nil, &finding)); !placed[r] && !strings.Contains(record, `"remediation":{"desc":"`) {
			t.Errorf("%s is on no row, and as a finding it does not say what to do: %s", r, record)
		}
	}
}

// TestEveryPolicyShownIsValid takes every YAML block of the pages: a policy, or values
// of the chart with a policy in them.
func TestEveryPolicyShownIsValid(t *testing.T) {
	pages, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	read := 0
	for _, page := range append(pages, "../README.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
			shown := m[1]
			var values struct{ Policy struct{ Inline string } }
			if err := yaml.Unmarshal([]byte(shown), &values); err != nil {
				t.Errorf("%s: %v", page, err)
			}
			if values.Policy.Inline != "" {
				shown = values.Policy.Inline
			}
			if !strings.Contains(shown, "version: 1") || strings.Contains(shown, "\ncredentials:") {
				continue // no policy: a fragment, or the credentials file, whose own test reads it
			}
			read++
			if _, _, err := policy.Parse(page, []byte(shown)); err != nil {
				t.Errorf("%s: %v\n%s", page, err, shown)
			}
		}
	}
	if read < 8 {
		t.Errorf("only %d policies were read", read)
	}
}

// TestPagesLeadToEachOther: a page that another names is a link, and every link leads to
// something that is there.
func TestPagesLeadToEachOther(t *testing.T) {
	code := regexp.MustCompile("(?ms)^```.*?^```|^    .*?$|`[^`]*`")
	link := regexp.MustCompile(`\]\(([^)#]*)[^)]*\)`)
	name := regexp.MustCompile(`[\w./-]+\.md\b`)
	links := 0
	for _, pattern := range []string{"../*.md", "*.md", "../deploy/*/*.md", "../deploy/*/*/*/*.md", "../test/*/*.md", "../test/*/*/*.md"} {
		pages, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, page := range pages {
			text, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			prose := code.ReplaceAllString(string(text), "")
			for _, m := range link.FindAllStringSubmatch(prose, -1) {
				if links++; m[1] == "" || strings.Contains(m[1], "://") {
					continue
				}
				if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
					t.Errorf("%s has a link to %s: %v", page, m[1], err)
				}
			}
			linked := regexp.MustCompile(`(?s)\[[^\]]*\]\([^)]*\)`).ReplaceAllString(prose, "")
			if generated := strings.Contains(prose, "do not edit"); !generated {
				for _, bare := range name.FindAllString(linked, -1) {
					t.Errorf("%s names %s without a link", page, bare)
				}
			}
		}
	}
	if links < 60 {
		t.Errorf("only %d links were read", links)
	}
}
