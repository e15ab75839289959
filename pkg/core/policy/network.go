package policy

import (
	"strings"

	"github.com/splitpod/splitpod/pkg/core/policy/glob"
)

// Limits of names that people see again in records and answers.
const maxNameLength = 128

// reserved starts the keys of rules that the control plane composes.
const reserved = "_provider_"

// network collects what the rules that span the whole file need.
type network struct {
	hosts     hosts
	endpoints []placed
}

// hosts are the compiled host patterns, by text.
type hosts map[string]*glob.Host

// placed is an endpoint with its place in the file and its compiled patterns.
type placed struct {
	Endpoint
	value
	host  *glob.Host
	scope *glob.Scope
}

func (n *network) rules(top object) map[string]Rule {
	out := map[string]Rule{}
	v, ok := top.fields["network_policies"]
	if !ok {
		return out
	}
	es, _ := v.entries()
	for _, e := range es {
		e.checkKey()
		out[e.name] = n.rule(e)
	}
	return out
}

// checkKey checks the key of a rule or middleware.
func (e entry) checkKey() {
	switch {
	case e.name == "":
		e.key.fail("the name is empty; name the entry")
	case len(e.name) > maxNameLength:
		e.key.fail("the name has %d bytes; %d are allowed", len(e.name), maxNameLength)
	case strings.HasPrefix(e.name, reserved):
		e.key.fail("names that start with %s are reserved; rename the entry", reserved)
	}
}

// name reads the name of a rule or middleware, which is its key by default.
func (o object) name(key string) string {
	s := o.text("name")
	switch {
	case s == "":
		return key
	case len(s) > maxNameLength:
		o.fields["name"].fail("the name has %d bytes; %d are allowed", len(s), maxNameLength)
	}
	return s
}

func (n *network) rule(e entry) Rule {
	rule := Rule{Name: e.name, At: e.key.at()}
	o, ok := e.object("name", "endpoints", "binaries")
	if !ok {
		return rule
	}
	rule.Name = o.name(e.name)
	vs, listed := o.elements("endpoints")
	if listed && len(vs) == 0 {
		o.missing("endpoints", "the rule has no endpoint and allows nothing; add one or remove the rule")
	}
	for _, v := range vs {
		rule.Endpoints = append(rule.Endpoints, n.endpoint(v))
	}
	bs, listed := o.elements("binaries")
	if listed && len(bs) == 0 {
		e.key.warn("the rule has no binaries and allows nothing while programs are identified; add binaries")
	}
	for _, v := range bs {
		rule.Binaries = append(rule.Binaries, v.binary())
	}
	return rule
}

// elements reads a key that holds a list. The second result is false if it holds
// something else; a key that is absent is an empty list.
func (o object) elements(key string) ([]value, bool) {
	if v, ok := o.fields[key]; ok {
		return v.list()
	}
	return nil, true
}
