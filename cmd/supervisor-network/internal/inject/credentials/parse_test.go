package credentials

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/splitpod/splitpod/pkg/core/strictyaml"
)

var update = flag.Bool("update", false, "write the golden files")

// problemLines is everything that Parse said.
func problemLines(t testing.TB, source string) string {
	t.Helper()
	doc, warnings, err := Parse("f", []byte(source))
	var problems strictyaml.Problems
	if err != nil && !errors.As(err, &problems) {
		t.Fatalf("the error is a %T", err)
	}
	if (doc == nil) != (err != nil) {
		t.Fatalf("document %v with error %v", doc, err)
	}
	var b strings.Builder
	for _, p := range append(warnings, problems...) {
		if p.At.Line == 0 || p.At.Column == 0 {
			t.Errorf("a problem without a place: %s", p)
		}
		b.WriteString(strings.TrimPrefix(p.String(), "f:") + "\n")
	}
	return b.String()
}

func TestEveryProblemOfTheFileIsNamedAtItsPlace(t *testing.T) {
	data, err := os.ReadFile("testdata/problems.txt")
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split("\n"+string(data), "\n== ")[1:]
	if len(parts) < 10 {
		t.Fatalf("only %d sections in problems.txt", len(parts))
	}
	var out strings.Builder
	for _, part := range parts {
		head, _, ok := strings.Cut(part, "-- problems")
		if !ok {
			t.Fatalf("a section without problems: %q", part)
		}
		_, source, _ := strings.Cut(head, "\n")
		fmt.Fprintf(&out, "== %s-- problems\n%s", head, problemLines(t, source))
	}
	if *update {
		if err := os.WriteFile("testdata/problems.txt", []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if diff := cmp.Diff(string(data), out.String()); diff != "" {
		t.Error(diff)
	}
}

func TestACompleteFileIsRead(t *testing.T) {
	data, err := os.ReadFile("testdata/complete.yaml")
	if err != nil {
		t.Fatal(err)
	}
	doc, warnings, err := Parse("complete.yaml", data)
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	if len(doc.Keys) != 5 || len(doc.Signing) != 1 || len(doc.Grants) != 2 {
		t.Fatalf("%+v", doc)
	}
	if k := doc.Keys[0]; k.Prefix != "ghp_" || k.Hygiene != HygieneBodies || !k.Expiry.At.Equal(time.Date(2026, 12, 31, 23, 59, 59, 0, time.UTC)) || len(k.Bindings) != 2 {
		t.Errorf("%+v", k)
	}
	if g := doc.Grants[1]; !g.Exchange || g.Header != "X-Stock-Token" || g.TTL != 5*time.Minute || g.SubjectKey != "SERVICE_ACCOUNT" {
		t.Errorf("%+v", g)
	}
}

func TestLimitsOfTheFile(t *testing.T) {
	keys := func(n int) string {
		var b strings.Builder
		b.WriteString("version: 1\ncredentials:\n")
		for i := range n {
			fmt.Fprintf(&b, "  K%d: {file: /s, environment: false}\n", i)
		}
		return b.String()
	}
	bindings := func(n int) string {
		return "version: 1\ncredentials:\n  K: {file: /s, bindings: [" + strings.Repeat("{host: a.test, port: 1}, ", n) + "]}\n"
	}
	grants := func(n int) string {
		var b strings.Builder
		b.WriteString("version: 1\ntoken_grants:\n")
		for i := range n {
			fmt.Fprintf(&b, "  - {name: g%[1]d, token_endpoint: https://a.test, workload_api: 'unix:///s', bindings: [{host: h%[1]d.test, port: 1}]}\n", i)
		}
		return b.String()
	}
	for _, c := range []struct {
		name      string
		make      func(int) string
		at        int
		complaint string
	}{
		{"keys", keys, MaxKeys, "2:1: credentials: there are 1025 keys; 1024 are allowed\n"},
		{"bindings", bindings, MaxBindings, "there are 257 bindings; 256 are allowed\n"},
		{"grants", grants, MaxGrants, "there are 65 token grants; 64 are allowed\n"},
	} {
		if got := problemLines(t, c.make(c.at)); got != "" {
			t.Errorf("%s at the limit: %s", c.name, got)
		}
		got := problemLines(t, c.make(c.at+1))
		if _, message, _ := strings.Cut(got, "there are"); message == "" || !strings.HasSuffix(c.complaint, message) {
			t.Errorf("%s above the limit: %s", c.name, got)
		}
	}
}

// FuzzParse: there is a document or problems, never both, and a document's keys can
// be named by placeholders and are bound or say that they are not.
func FuzzParse(f *testing.F) {
	for _, name := range []string{"testdata/complete.yaml", "testdata/problems.txt"} {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for part := range strings.SplitSeq(string(data), "-- problems") {
			_, source, _ := strings.Cut(part, "version")
			f.Add([]byte("version" + source))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		doc, _, err := Parse("f", data)
		if (doc == nil) != (err != nil) {
			t.Fatalf("document %v with error %v", doc, err)
		}
		if doc == nil {
			return
		}
		for _, k := range doc.Keys {
			if k.File == "" || k.Environment && !k.Anywhere && len(k.Bindings) == 0 || k.Anywhere && len(k.Bindings) > 0 {
				t.Fatalf("%+v", k)
			}
			for _, b := range k.Bindings {
				if b.host == nil || b.path == nil || len(b.Ports) == 0 {
					t.Fatalf("a binding that matches nothing: %+v", b)
				}
			}
		}
	})
}
