package policy

import (
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/splitpod/splitpod/pkg/core/policy/glob"
)

// matcherKeys are the keys of a matcher.
var matcherKeys = []string{
	"method", "path", "command", "query", "operation_type", "operation_name", "fields", "tool", "params",
}

// matcherReader fills one matcher.
type matcherReader struct {
	object
	e    *Endpoint
	m    *Matcher
	deny bool
}

// readRules reads rules and deny_rules.
func (er endpointReader) readRules() {
	if v, ok := er.fields["rules"]; ok {
		for _, item := range er.nonEmpty("rules", v) {
			if item.bareMatcher() {
				item.fail("what a rule matches belongs under allow; write - allow: {...}")
				continue
			}
			o, ok := item.object("allow")
			if !ok {
				continue
			}
			if allow, ok := o.fields["allow"]; ok {
				er.matcher(allow, false)
			} else {
				o.missing("allow", "the rule is empty; write allow: and what it matches")
			}
		}
	}
	if v, ok := er.fields["deny_rules"]; ok {
		for _, item := range er.nonEmpty("deny_rules", v) {
			er.matcher(item, true)
		}
	}
}

// bareMatcher reports whether the value has keys of a matcher and not the key allow.
func (v value) bareMatcher() bool {
	found := false
	for i := 0; v.node.Kind == yaml.MappingNode && i < len(v.node.Content); i += 2 {
		key := v.node.Content[i].Value
		if key == "allow" {
			return false
		}
		found = found || slices.Contains(matcherKeys, key)
	}
	return found
}

func (er endpointReader) nonEmpty(key string, v value) []value {
	vs, ok := v.list()
	if ok && len(vs) == 0 {
		v.fail("%s is empty; list rules or remove the key", key)
	}
	return vs
}

func (er endpointReader) matcher(v value, deny bool) {
	o, ok := v.object(matcherKeys...)
	if !ok {
		return
	}
	m := Matcher{At: v.at()}
	mr := matcherReader{object: o, e: er.e, m: &m, deny: deny}
	before := v.r.errors
	mr.read()
	if v.r.errors == before && !er.unknownProtocol() {
		mr.check()
	}
	if deny {
		er.e.Deny = append(er.e.Deny, m)
		er.rules.deny = append(er.rules.deny, v)
	} else {
		er.e.Allow = append(er.e.Allow, m)
		er.rules.allow = append(er.rules.allow, v)
	}
}

func (mr matcherReader) read() {
	m := mr.m
	if len(mr.fields) == 0 {
		mr.fail("the rule matches nothing; write what it is about")
		return
	}
	m.Method = mr.filled("method")
	m.Path = mr.filled("path")
	m.Command = mr.filled("command")
	m.Query = mr.query()
	m.OperationType = mr.word("operation_type", "query", "mutation", "subscription", "*")
	if v, ok := mr.fields["operation_type"]; ok && v.emptyText() {
		v.fail("the operation type is empty; write query, mutation, subscription or *")
	}
	m.OperationName = mr.nameGlob("operation_name")
	m.Fields = mr.fieldGlobs()
	m.Tool = mr.nameGlob("tool")
	m.Params = mr.params()
}

// filled reads a key whose text may not be empty.
func (mr matcherReader) filled(key string) string {
	v, ok := mr.fields[key]
	if !ok {
		return ""
	}
	s, ok := v.text()
	if ok && s == "" {
		v.fail("%s is empty and would never match; write it or remove the key", key)
	}
	return s
}

// nameGlob reads a pattern for a name.
func (mr matcherReader) nameGlob(key string) string {
	s := mr.filled(key)
	if s != "" {
		mr.fields[key].checkNameGlob(s)
	}
	return s
}

func (v value) checkNameGlob(s string) {
	if _, err := glob.Compile(s, '.'); err != nil {
		v.fail("%s is not a valid pattern: %v", quoted(s), err)
	}
}

func (mr matcherReader) fieldGlobs() []string {
	if v, ok := mr.fields["fields"]; ok && v.emptyList() {
		v.fail("fields is empty; list root fields or remove the key")
	}
	var out []string
	for _, t := range mr.texts("fields") {
		if t.s == "" {
			t.fail("the field is empty; name a root field")
			continue
		}
		t.checkNameGlob(t.s)
		out = append(out, t.s)
	}
	return out
}

// query reads patterns for query parameters: a text, or a map with any.
func (mr matcherReader) query() map[string][]string {
	v, ok := mr.fields["query"]
	if !ok {
		return nil
	}
	es, ok := v.entries()
	if ok && len(v.node.Content) == 0 {
		v.fail("query is empty; name parameters or remove the key")
	}
	out := map[string][]string{}
	for _, e := range es {
		if e.name == "" {
			e.key.fail("the parameter has no name; name it")
		}
		out[e.name] = e.queryGlobs()
	}
	return out
}

func (e entry) queryGlobs() []string {
	if e.node.Kind == yaml.ScalarNode {
		s, ok := e.value.text()
		if !ok {
			return nil
		}
		e.checkNameGlob(s)
		return []string{s}
	}
	o, ok := e.object("any")
	if !ok {
		return nil
	}
	ts := o.texts("any")
	if v, has := o.fields["any"]; !has || v.emptyList() {
		o.missing("any", "any is empty and would never match; list patterns")
	}
	var out []string
	for _, t := range ts {
		t.checkNameGlob(t.s)
		out = append(out, t.s)
	}
	return out
}

func (mr matcherReader) params() map[string]string {
	v, ok := mr.fields["params"]
	if !ok {
		return nil
	}
	es, ok := v.entries()
	if ok && len(v.node.Content) == 0 {
		v.fail("params is empty; name parameters or remove the key")
	}
	out := map[string]string{}
	for _, e := range es {
		s, ok := e.value.text()
		switch {
		case !ok:
		case e.name == "":
			e.key.fail("the parameter has no name; name it")
		case s == "":
			e.value.fail("the pattern is empty and would never match; write one")
		default:
			e.checkNameGlob(s)
			out[e.name] = s
		}
	}
	return out
}
