package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing that is wrong with a policy file. Line and column of At
// are never zero in a Problem that Parse returned.
type Problem struct {
	File    string
	At      Position
	Field   string // such as network_policies.github.endpoints[0].port; empty for the whole file
	Message string // says what to write instead, where that can be said
	Warning bool   // the policy is used all the same
}

// String is "file:line:column: field: message", with "warning:" before the field
// of a warning.
func (p Problem) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d:%d: ", p.File, p.At.Line, p.At.Column)
	if p.Warning {
		b.WriteString("warning: ")
	}
	if p.Field != "" {
		b.WriteString(p.Field + ": ")
	}
	b.WriteString(p.Message)
	return b.String()
}

// Problems are what is wrong with one file, in the order of the file.
type Problems []Problem

// Error has one problem on each line.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// sortProblems orders by place, and what stands at the same place by field.
func sortProblems(ps []Problem) {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(
			cmp.Compare(a.At.Line, b.At.Line),
			cmp.Compare(a.At.Column, b.At.Column),
			cmp.Compare(a.Field, b.Field),
			cmp.Compare(a.Message, b.Message),
		)
	})
}
