package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/splitpod/splitpod/pkg/core"
)

func TestAReasonWithoutAMeaningIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "r.go")
	for name, c := range map[string]struct {
		source string
		ok     bool
	}{
		"a meaning": {"package p\nconst ReasonA Reason = \"a\" // what it means\n", true},
		"none":      {"package p\nconst ReasonA Reason = \"a\"\n", false},
		"no reason": {"package p\nconst A Other = \"a\" // x\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(file, []byte(c.source), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := read(file); (err == nil) != c.ok {
				t.Errorf("read: %v, want ok %t", err, c.ok)
			}
		})
	}
}

func TestReasonsAreDistinctAndWellFormed(t *testing.T) {
	seen := make(map[core.Reason]bool)
	for _, r := range append(core.Reasons(), core.EventReasons()...) {
		if seen[r] || r == "" || core.ParseReason(string(r)) != r {
			t.Errorf("%q is twice in the list or malformed", r)
		}
		seen[r] = true
	}
	if len(seen) < 40 {
		t.Errorf("only %d reasons", len(seen))
	}
}

// TestEveryReasonInTheCodeIsAConstant: a literal is in no list, on no page and in no metric,
// and who looks for a reason does not find where it is given.
func TestEveryReasonInTheCodeIsAConstant(t *testing.T) {
	files := 0
	err := filepath.WalkDir("../../cmd", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		tree, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		files++
		ast.Inspect(tree, func(n ast.Node) bool {
			for _, text := range reasonsIn(n) {
				t.Errorf("%s: the reason %q is a literal; pkg/core/verdict.go has the constants", path, text)
			}
			return true
		})
		return nil
	})
	if err != nil || files < 100 {
		t.Fatalf("%d files: %v", files, err)
	}
}

// reasonsIn are the string literals that a node uses as a reason: of a member Reason, and
// of functions that take one first.
func reasonsIn(n ast.Node) []string {
	var value ast.Expr
	switch n := n.(type) {
	case *ast.KeyValueExpr:
		if key, ok := n.Key.(*ast.Ident); ok && key.Name == "Reason" {
			value = n.Value
		}
	case *ast.CallExpr:
		if f, ok := n.Fun.(*ast.SelectorExpr); ok && slices.Contains([]string{"event", "lifecycle", "sshEvent", "workloadEvent"}, f.Sel.Name) && len(n.Args) > 0 {
			value = n.Args[0]
		}
	}
	lit, ok := value.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return nil
	}
	text, err := strconv.Unquote(lit.Value)
	if err != nil {
		return nil
	}
	return []string{text}
}
