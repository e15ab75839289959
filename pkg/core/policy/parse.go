package policy

import "go.yaml.in/yaml/v3"

// Parse reads a policy file. The name is for messages only. It returns a valid
// Document, or an error that is of type Problems and holds everything that is
// wrong, in the order of the file. The warnings are returned in both cases.
func Parse(file string, data []byte) (*Document, []Problem, error) {
	r := &reader{file: file}
	doc := r.parse(data)
	warnings, err := r.outcome()
	if err != nil {
		return nil, warnings, err
	}
	return doc, warnings, nil
}

// outcome is everything that was reported: warnings, and the rest as an error.
func (r *reader) outcome() (warnings []Problem, err error) {
	sortProblems(r.problems)
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

func (r *reader) parse(data []byte) *Document {
	root, ok := r.root(data)
	if !ok {
		return nil
	}
	top, ok := root.object("version", "filesystem_policy", "landlock", "process",
		"network_policies", "network_middlewares")
	if !ok {
		return nil
	}
	doc := &Document{Version: top.version()}
	top.static(doc)
	n := network{hosts: hosts{}}
	doc.Network = n.rules(top)
	doc.Middlewares = n.middlewares(top)
	n.ambiguities(top)
	return doc
}

// root is the value of the whole file, if it can be looked at.
func (r *reader) root(data []byte) (value, bool) {
	root := r.load(data)
	switch {
	case r.errors > 0:
		return value{}, false
	case root == nil || root.Kind == yaml.ScalarNode && root.Tag == "!!null":
		r.reportAt(Position{1, 1}, "", "the file is empty; write version: 1 at least")
		return value{}, false
	case !r.structure(root, 0):
		return value{}, false
	}
	return value{r, "", root}, true
}

func (o object) version() int {
	v, ok := o.fields["version"]
	if !ok {
		o.missing("version", "the version is missing; write version: 1")
		return 0
	}
	n, ok := v.number(0, 1<<32-1)
	if ok && n != 1 {
		v.fail("version %d is not known to this build; write version: 1", n)
	}
	return int(n)
}
