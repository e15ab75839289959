package policy

import (
	"strings"

	"github.com/splitpod/splitpod/pkg/core/policy/glob"
	"github.com/splitpod/splitpod/pkg/core/strictyaml"
)

// Limits of names that people see again in records and answers.
const maxNameLength = 128

// reserved starts the keys of rules that the control plane composes.
const reserved = "_provider_"

// network collects what the rules that span the whole file need.
type network struct {
	composed  bool // by a control plane; see ParseComposed
	hosts     hosts
	endpoints []placed
}

// hosts are the compiled host patterns, by text.
type hosts map[string]*glob.Host

// placed is an endpoint with its place in the file and its compiled patterns.
type placed struct {
	Endpoint
	strictyaml.Value
	host  *glob.Host
	scope *glob.Scope
}

func (n *network) rules(top strictyaml.Object) map[string]Rule {
	out := map[string]Rule{}
	v, ok := top.Fields["network_policies"]
	if !ok {
		return out
	}
	es, _ := v.Entries()
	for _, e := range es {
		n.checkKey(e)
		out[e.Name] = n.rule(e)
	}
	return out
}

// checkKey checks the key of a rule or middleware.
func (n *network) checkKey(e strictyaml.Entry) {
	switch {
	case e.Name == "":
		e.Key.Fail("the name is empty; name the entry")
	case len(e.Name) > maxNameLength:
		e.Key.Fail("the name has %d bytes; %d are allowed", len(e.Name), maxNameLength)
	case strings.HasPrefix(e.Name, reserved) && !n.composed:
		e.Key.Fail("names that start with %s are reserved; rename the entry", reserved)
	}
}

// nameOf reads the name of a rule or middleware, which is its key by default.
func nameOf(o strictyaml.Object, key string) string {
	s := o.Text("name")
	switch {
	case s == "":
		return key
	case len(s) > maxNameLength:
		o.Fields["name"].Fail("the name has %d bytes; %d are allowed", len(s), maxNameLength)
	}
	return s
}

func (n *network) rule(e strictyaml.Entry) Rule {
	rule := Rule{Name: e.Name, At: e.Key.At()}
	o, ok := e.Object("name", "endpoints", "binaries")
	if !ok {
		return rule
	}
	rule.Name = nameOf(o, e.Name)
	vs, listed := elements(o, "endpoints")
	if listed && len(vs) == 0 {
		o.FailKey("endpoints", "the rule has no endpoint and allows nothing; add one or remove the rule")
	}
	for _, v := range vs {
		rule.Endpoints = append(rule.Endpoints, n.endpoint(v))
	}
	bs, listed := elements(o, "binaries")
	if listed && len(bs) == 0 {
		e.Key.Warn("the rule has no binaries and allows nothing while programs are identified; add binaries")
	}
	for _, v := range bs {
		b := n.binary(v)
		rule.Binaries = append(rule.Binaries, b)
		for i := range rule.Endpoints {
			e := &rule.Endpoints[i]
			e.AdvisorProposed = e.AdvisorProposed || b.AdvisorProposed
		}
	}
	return rule
}

// elements reads a key that holds a list. The second result is false if it holds
// something else; a key that is absent is an empty list.
func elements(o strictyaml.Object, key string) ([]strictyaml.Value, bool) {
	if v, ok := o.Fields[key]; ok {
		return v.List()
	}
	return nil, true
}
