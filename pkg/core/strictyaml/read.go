package strictyaml

import (
	"fmt"
	"io"
	"os"
	"slices"

	"go.yaml.in/yaml/v3"
)

// Load reads a file for Read, which refuses one of more than MaxBytes: of that, one byte
// more is read.
func Load(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, MaxBytes+1))
}

// Read calls read with the value of the whole file, unless there is nothing to look at. The
// name is for messages only. The error is of type Problems and holds everything that was
// reported, in the order of the file; the warnings are returned in both cases. Values may be
// used until read returns.
func Read(file string, data []byte, read func(top Value)) (warnings []Problem, err error) {
	r := &reader{file: file}
	if top, ok := r.root(data); ok {
		read(top)
	}
	return r.outcome()
}

// reader collects problems while a file is read.
type reader struct {
	file     string
	problems []Problem
	more     int // problems above MaxProblems
	errors   int // problems that are not warnings
}

func (r *reader) add(p Problem) {
	if !p.Warning {
		r.errors++
	}
	if len(r.problems) >= MaxProblems {
		r.more++
		return
	}
	p.File = r.file
	r.problems = append(r.problems, p)
}

func (r *reader) reportAt(at Position, field, format string, args ...any) {
	r.add(Problem{At: at, Field: field, Message: fmt.Sprintf(format, args...)})
}

func (r *reader) report(n *yaml.Node, field, format string, args ...any) {
	r.reportAt(place(n), field, format, args...)
}

// outcome is everything that was reported: warnings, and the rest as an error.
func (r *reader) outcome() (warnings []Problem, err error) {
	slices.SortStableFunc(r.problems, Problem.Compare)
	var errs []Problem
	for _, p := range r.problems {
		if p.Warning {
			warnings = append(warnings, p)
		} else {
			errs = append(errs, p)
		}
	}
	if r.errors == 0 {
		return warnings, nil
	}
	if r.more > 0 {
		errs = append(errs, r.overflow())
	}
	return warnings, Problems(errs)
}

// overflow stands for the problems that were not kept.
func (r *reader) overflow() Problem {
	last := Position{1, 1}
	if n := len(r.problems); n > 0 {
		last = r.problems[n-1].At
	}
	o := reader{file: r.file}
	o.reportAt(last, "", "%d more problems are not shown", r.more)
	return o.problems[0]
}

// root is the value of the whole file, if it can be looked at.
func (r *reader) root(data []byte) (Value, bool) {
	root := r.load(data)
	switch {
	case r.errors > 0:
		return Value{}, false
	case root == nil || root.Kind == yaml.ScalarNode && root.Tag == "!!null":
		r.reportAt(Position{1, 1}, "", "the file is empty; write version: 1 at least")
		return Value{}, false
	case !r.structure(root, 0):
		return Value{}, false
	}
	return Value{r, "", root}, true
}
