package decide

import (
	"errors"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/types"

	"github.com/splitpod/splitpod/pkg/core/policy/glob"
)

// globs are the compiled patterns of one policy, by text. They are written while the
// policy is compiled and only read afterwards.
type globs struct {
	hosts  map[string]*glob.Host
	scopes map[string]*glob.Scope
	paths  map[string]*glob.Pattern
	names  map[string]*glob.Pattern // of rules that allow
	denies map[string]*glob.Pattern // of rules that deny: no character stops a wildcard
}

func newGlobs() *globs {
	return &globs{
		hosts: map[string]*glob.Host{}, scopes: map[string]*glob.Scope{}, paths: map[string]*glob.Pattern{},
		names: map[string]*glob.Pattern{}, denies: map[string]*glob.Pattern{},
	}
}

// compiled returns what a pattern was compiled to, and compiles it the first time.
func compiled[P any](known map[string]P, text string, compile func() (P, error)) (P, error) {
	if p, ok := known[text]; ok {
		return p, nil
	}
	p, err := compile()
	if err == nil {
		known[text] = p
	}
	return p, err
}

func (g *globs) scope(text string) (*glob.Scope, error) {
	return compiled(g.scopes, text, func() (*glob.Scope, error) {
		s := glob.CompileScope(text)
		return s, s.Err()
	})
}

func (g *globs) path(text string) (*glob.Pattern, error) {
	return compiled(g.paths, text, func() (*glob.Pattern, error) { return glob.Compile(text, '/') })
}

func (g *globs) name(text string) (*glob.Pattern, error) {
	return compiled(g.names, text, func() (*glob.Pattern, error) { return glob.Compile(text, '.') })
}

func (g *globs) denied(text string) (*glob.Pattern, error) {
	return compiled(g.denies, text, func() (*glob.Pattern, error) { return glob.CompileDeny(text, '.') })
}

// builtins are the functions that the modules match with.
func (g *globs) builtins() []func(*rego.Rego) {
	return []func(*rego.Rego){
		matcher("splitpod.host_matches", g.hosts),
		matcher("splitpod.scope_matches", g.scopes),
		matcher("splitpod.path_matches", g.paths),
		matcher("splitpod.name_matches", g.names),
		matcher("splitpod.name_denied", g.denies),
	}
}

// matcher makes a builtin of a matching function over compiled patterns.
func matcher[P interface{ Match(string) bool }](name string, compiled map[string]P) func(*rego.Rego) {
	decl := &rego.Function{Name: name, Decl: types.NewFunction(types.Args(types.S, types.S), types.B)}
	return rego.Function2(decl, func(_ rego.BuiltinContext, pattern, text *ast.Term) (*ast.Term, error) {
		p, ok1 := pattern.Value.(ast.String)
		s, ok2 := text.Value.(ast.String)
		m, ok3 := compiled[string(p)]
		if !ok1 || !ok2 || !ok3 {
			return nil, errors.New("BUG: " + name + " with " + pattern.String())
		}
		return ast.InternedTerm(m.Match(string(s))), nil
	})
}
