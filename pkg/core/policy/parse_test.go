package policy

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/splitpod/splitpod/pkg/core/strictyaml"
)

var update = flag.Bool("update", false, "write the golden files")

// broken is one section of problems.txt: a file with what is wrong with it.
type broken struct{ name, source, problems string }

const (
	sectionMark  = "== "
	problemsMark = "-- problems"
)

func readBroken(t testing.TB) []broken {
	t.Helper()
	data, err := os.ReadFile("testdata/problems.txt")
	if err != nil {
		t.Fatal(err)
	}
	var out []broken
	for part := range strings.SplitSeq("\n"+string(data), "\n"+sectionMark) {
		if part = strings.TrimPrefix(part, "\n"); part == "" {
			continue
		}
		name, rest, _ := strings.Cut(part, "\n")
		source, problems, ok := strings.Cut(rest, problemsMark)
		if !ok {
			t.Fatalf("%s has no %q", name, problemsMark)
		}
		if problems = strings.TrimPrefix(problems, "\n"); problems != "" {
			problems = strings.TrimSuffix(problems, "\n") + "\n"
		}
		out = append(out, broken{name, source, problems})
	}
	if len(out) < 150 {
		t.Fatalf("only %d sections in problems.txt", len(out))
	}
	return out
}

// problemLines is everything that Parse said, without the name of the file.
func problemLines(t testing.TB, source string) string {
	t.Helper()
	doc, warnings, err := Parse("f", []byte(source))
	all := slices.Clone(warnings)
	var problems strictyaml.Problems
	if err != nil && !errors.As(err, &problems) {
		t.Fatalf("the error is a %T", err)
	}
	if (doc == nil) != (err != nil) {
		t.Fatalf("document %v with error %v", doc, err)
	}
	all = append(all, problems...)
	slices.SortStableFunc(all, strictyaml.Problem.Compare)
	var b strings.Builder
	for _, p := range all {
		b.WriteString(strings.TrimPrefix(p.String(), "f:") + "\n")
	}
	return b.String()
}

// TestEveryRuleNamesItsProblem has one broken file for each rule of the schema,
// near misses among them.
func TestEveryRuleNamesItsProblem(t *testing.T) {
	cases := readBroken(t)
	var out strings.Builder
	for _, c := range cases {
		got := problemLines(t, c.source)
		out.WriteString(sectionMark + c.name + "\n" + c.source + problemsMark + "\n" + got)
		if !*update && got != c.problems {
			t.Errorf("%s:\n%s%s", c.name, c.source, cmp.Diff(c.problems, got))
		}
	}
	if *update {
		write(t, "problems.txt", []byte(out.String()))
	}
}

func write(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join("testdata", name), data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestCompletePolicyHasNoProblem(t *testing.T) {
	data, err := os.ReadFile("testdata/complete.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range slices.Concat(endpointKeys, matcherKeys) {
		if !strings.Contains(string(data), key+":") {
			t.Errorf("complete.yaml does not use %s", key)
		}
	}
	doc, warnings, err := Parse("complete.yaml", data)
	// The one thing that cannot be used without a warning.
	sql := func(p strictyaml.Problem) bool { return strings.HasPrefix(p.Message, "sql is not inspected") }
	if warnings = slices.DeleteFunc(warnings, sql); err != nil || len(warnings) > 0 {
		t.Fatalf("%v\n%v", err, warnings)
	}
	got, err := json.MarshalIndent(doc, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	if *update {
		write(t, "complete.golden.json", got)
		return
	}
	want, err := os.ReadFile("testdata/complete.golden.json")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Error(diff)
	}
}
