// Package docs_test keeps the pages true: what they list is compared with the code,
// and every policy they show is read.
package docs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/splitpod/splitpod/pkg/core/policy"
)

// TestTroubleshootingKnowsEveryReason reads the reasons where they are written down.
func TestTroubleshootingKnowsEveryReason(t *testing.T) {
	page, err := os.ReadFile("troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	constant := regexp.MustCompile(`Reason[A-Z]\w*\s+(?:core\.)?Reason\s+= "([a-z_]+)"`)
	literal := regexp.MustCompile(`Reason: "([a-z_]+)"|, "([a-z_]+)" // reason`)
	found := make(map[string]bool)
	for _, root := range []string{"../pkg/core", "../cmd"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for _, m := range append(constant.FindAllStringSubmatch(string(data), -1), literal.FindAllStringSubmatch(string(data), -1)...) {
				found[m[1]] = true
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(found) < 30 {
		t.Fatalf("only %d reasons were found", len(found))
	}
	for reason := range found {
		if !strings.Contains(string(page), "`"+reason+"`") {
			t.Errorf("troubleshooting.md does not explain %s", reason)
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
