package strictyaml

import (
	"cmp"
	"fmt"
	"strings"
)

// Position is a place in a file. Lines and columns count from 1, columns in characters; the
// zero value is nowhere.
type Position struct {
	Line, Column int
}

// Problem is one thing that is wrong with a file. Line and column of At are never zero in a
// Problem that Read returned.
type Problem struct {
	File    string
	At      Position
	Field   string // such as network_policies.github.endpoints[0].port; empty for the whole file
	Message string // says what to write instead, where that can be said
	Warning bool   // the file is used all the same
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

// Compare orders problems of one file by place, and what stands at the same place by field.
func (p Problem) Compare(q Problem) int {
	return cmp.Or(
		cmp.Compare(p.At.Line, q.At.Line),
		cmp.Compare(p.At.Column, q.At.Column),
		cmp.Compare(p.Field, q.Field),
		cmp.Compare(p.Message, q.Message),
	)
}
