package docs_test

import (
	"os"
	"regexp"
	"slices"
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestThePolicyPageNamesEveryKey takes the keys of a policy that has all of them.
func TestThePolicyPageNamesEveryKey(t *testing.T) {
	page, err := os.ReadFile("policy.md")
	if err != nil {
		t.Fatal(err)
	}
	complete, err := os.ReadFile("../pkg/core/policy/testdata/complete.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file map[string]any
	if err := yaml.Unmarshal(complete, &file); err != nil {
		t.Fatal(err)
	}
	delete(file, "network_middlewares") // refused
	keys := make(map[string]bool)
	collect(file, keys)
	if len(keys) < 40 {
		t.Fatalf("only %d keys were found", len(keys))
	}
	delete(keys, "harness") // of older files; it means nothing
	for key := range keys {
		if !regexp.MustCompile(`\b` + regexp.QuoteMeta(key) + `\b`).Match(page) {
			t.Errorf("policy.md does not name %s", key)
		}
	}
}

// collect finds the keys of a policy, without those that its author chooses.
func collect(v any, keys map[string]bool) {
	chosen := []string{"network_policies", "graphql_persisted_queries", "query", "params"}
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			collect(e, keys)
		}
	case map[string]any:
		for key, value := range v {
			keys[key] = true
			inside, ok := value.(map[string]any)
			if !ok || !slices.Contains(chosen, key) {
				collect(value, keys)
				continue
			}
			for _, e := range inside {
				collect(e, keys)
			}
		}
	}
}
