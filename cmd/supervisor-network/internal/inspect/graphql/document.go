package graphql

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"
	"github.com/vektah/gqlparser/v2/parser"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
)

// operation reads a document and selects what the request executes of it.
func operation(text, name string) (decide.Operation, error) {
	if err := scan(text); err != nil {
		return decide.Operation{}, err
	}
	doc, err := parser.ParseQueryWithTokenLimit(&ast.Source{Input: text}, MaxTokens)
	if err != nil {
		return decide.Operation{}, syntax(err)
	}
	op, err := selected(doc.Operations, name)
	if err != nil {
		return decide.Operation{}, err
	}
	w, err := newWalk(doc.Fragments)
	if err != nil {
		return decide.Operation{}, err
	}
	if err := w.fields(op.SelectionSet); err != nil {
		return decide.Operation{}, err
	}
	return decide.Operation{Type: string(op.Operation), Name: op.Name, Fields: w.found}, nil
}

// syntax says where a document is wrong. What the parser says quotes it.
func syntax(err error) error {
	if e, ok := errors.AsType[*gqlerror.Error](err); ok && len(e.Locations) > 0 {
		return bad(fmt.Sprintf("the GraphQL document has a syntax error in line %d, column %d", e.Locations[0].Line, e.Locations[0].Column))
	}
	return bad("the GraphQL document has a syntax error")
}

// selected is the operation of that name, or the only one.
func selected(all ast.OperationList, name string) (*ast.OperationDefinition, error) {
	var op *ast.OperationDefinition
	names := make(map[string]bool, min(len(all), 64))
	for _, o := range all {
		switch {
		case o.Name == "" && len(all) > 1:
			return nil, bad("an operation without a name is alone in its document")
		case names[o.Name]:
			return nil, bad("an operation's name stands once in its document")
		}
		names[o.Name] = true
		if name == o.Name || name == "" && len(all) == 1 {
			op = o
		}
	}
	switch {
	case len(all) == 0:
		return nil, bad("a GraphQL document contains an operation")
	case op == nil && name == "":
		return nil, bad("operationName selects one of several operations")
	case op == nil:
		return nil, bad("operationName names an operation of the document")
	}
	return op, nil
}

// state is how far a fragment is walked.
type state uint8

const (
	open state = iota + 1
	done
)

// walk gathers root fields. A fragment is walked once, however often it is spread.
type walk struct {
	fragments map[string]*ast.FragmentDefinition
	states    map[string]state
	found     []string
	many      map[string]bool // found, once there are many
}

func newWalk(fragments ast.FragmentDefinitionList) (*walk, error) {
	w := &walk{}
	if len(fragments) > 0 {
		w.fragments, w.states = make(map[string]*ast.FragmentDefinition, len(fragments)), map[string]state{}
	}
	for _, f := range fragments {
		if w.fragments[f.Name] != nil {
			return nil, bad("a fragment's name stands once in its document")
		}
		w.fragments[f.Name] = f
	}
	return w, nil
}

// fields adds the fields that the selections have at their top, by the name they
// have, not the one they are given. Directives are left aside: whether a field is
// skipped depends on variables, and so on the server.
func (w *walk) fields(set ast.SelectionSet) error {
	for _, s := range set {
		switch s := s.(type) {
		case *ast.Field:
			w.add(s.Name)
		case *ast.InlineFragment:
			if err := w.fields(s.SelectionSet); err != nil {
				return err
			}
		case *ast.FragmentSpread:
			if err := w.spread(s.Name); err != nil {
				return err
			}
		default:
			return bad("a selection is a field or a fragment")
		}
	}
	return nil
}

func (w *walk) spread(name string) error {
	f := w.fragments[name]
	switch {
	case f == nil:
		return bad("a fragment that is spread is in the document")
	case w.states[name] == open:
		return bad("a fragment does not contain itself")
	case w.states[name] == done:
		return nil
	}
	w.states[name] = open
	if err := w.fields(f.SelectionSet); err != nil {
		return err
	}
	w.states[name] = done
	return nil
}

const fewFields = 16

func (w *walk) add(name string) {
	if w.many == nil {
		if slices.Contains(w.found, name) {
			return
		}
		if len(w.found) == fewFields {
			w.many = make(map[string]bool, 4*fewFields)
			for _, f := range w.found {
				w.many[f] = true
			}
		}
	}
	if w.many != nil {
		if w.many[name] {
			return
		}
		w.many[name] = true
	}
	w.found = append(w.found, name)
}
