package policy

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/splitpod/splitpod/pkg/core/strictyaml"
)

// FuzzParse checks what callers rely on: a document or an error and never both,
// the same answer every time, and problems that point into the file.
func FuzzParse(f *testing.F) {
	for _, c := range readBroken(f) {
		f.Add([]byte(c.source))
	}
	for _, name := range []string{"testdata/complete.yaml", "testdata/many.yaml"} {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<14 {
			t.Skip()
		}
		doc, warnings, err := Parse("f", data)
		if (doc == nil) != (err != nil) {
			t.Fatalf("document %v with error %v", doc, err)
		}
		var problems strictyaml.Problems
		if err != nil && (!errors.As(err, &problems) || len(problems) == 0) {
			t.Fatalf("the error %v has no problems", err)
		}
		for _, p := range problems {
			checkProblem(t, data, p, false)
		}
		for _, p := range warnings {
			checkProblem(t, data, p, true)
		}
		again, _, errAgain := Parse("f", data)
		if diff := cmp.Diff(text(err), text(errAgain)); diff != "" {
			t.Fatal(diff)
		}
		if doc != nil {
			checkDocument(t, doc)
			if len(again.Network) != len(doc.Network) {
				t.Fatal("the second document differs")
			}
		}
	})
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func checkProblem(t *testing.T, data []byte, p strictyaml.Problem, warning bool) {
	t.Helper()
	lines := bytes.Split(data, []byte{'\n'})
	switch {
	case p.Warning != warning || p.File != "f" || p.Message == "":
		t.Fatalf("odd problem %+v", p)
	case p.At.Line < 1 || p.At.Line > len(lines):
		t.Fatalf("%s: the file has %d lines", p, len(lines))
	case p.At.Column < 1 || p.At.Column > utf8.RuneCount(lines[p.At.Line-1])+1:
		t.Fatalf("%s: the line has %d characters", p, utf8.RuneCount(lines[p.At.Line-1]))
	case strings.ContainsFunc(p.String(), func(c rune) bool { return strictyaml.Clip(string(c)) != string(c) }):
		t.Fatalf("%q has an invisible character", p.String())
	}
}

// checkDocument checks what no valid document may contain.
func checkDocument(t *testing.T, doc *Document) {
	t.Helper()
	if doc.Version != 1 || len(doc.Filesystem.ReadOnly)+len(doc.Filesystem.ReadWrite) > MaxPaths {
		t.Fatalf("%+v", doc)
	}
	for _, p := range doc.Filesystem.ReadWrite {
		if p == "/" || p[0] != '/' || strings.Contains(p, "..") && hasDotDot(p) {
			t.Fatalf("read-write path %q", p)
		}
	}
	for key, r := range doc.Network {
		if strings.HasPrefix(key, reserved) || len(r.Endpoints) == 0 {
			t.Fatalf("rule %q: %+v", key, r)
		}
		for _, e := range r.Endpoints {
			if len(e.Ports) == 0 || e.Host != strings.ToLower(e.Host) || e.Host == "" && len(e.AllowedIPs) == 0 {
				t.Fatalf("endpoint %+v", e)
			}
			if !e.Protocol.Inspected() && len(e.Allow)+len(e.Deny) > 0 {
				t.Fatalf("rules that nobody reads: %+v", e)
			}
			for _, a := range e.AllowedIPs {
				if why := blockedRange(a.Prefix); why != "" {
					t.Fatalf("%v is %s", a.Prefix, why)
				}
			}
		}
	}
}
