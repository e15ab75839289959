package policy

import (
	"slices"

	"github.com/splitpod/splitpod/pkg/core/policy/glob"
	"github.com/splitpod/splitpod/pkg/core/strictyaml"
)

// matcherKeys are the keys of a matcher.
var matcherKeys = []string{
	"method", "path", "command", "query", "operation_type", "operation_name", "fields", "tool", "params",
}

// matcherReader fills one matcher.
type matcherReader struct {
	strictyaml.Object
	e    *Endpoint
	m    *Matcher
	deny bool
}

// readRules reads rules and deny_rules.
func (er endpointReader) readRules() {
	if v, ok := er.Fields["rules"]; ok {
		for _, item := range er.nonEmpty("rules", v) {
			if bareMatcher(item) {
				item.Fail("what a rule matches belongs under allow; write - allow: {...}")
				continue
			}
			o, ok := item.Object("allow")
			if !ok {
				continue
			}
			if allow, ok := o.Fields["allow"]; ok {
				er.matcher(allow, false)
			} else {
				o.FailKey("allow", "the rule is empty; write allow: and what it matches")
			}
		}
	}
	if v, ok := er.Fields["deny_rules"]; ok {
		for _, item := range er.nonEmpty("deny_rules", v) {
			er.matcher(item, true)
		}
	}
}

// bareMatcher reports whether the value has keys of a matcher and not the key allow.
func bareMatcher(v strictyaml.Value) bool {
	found := false
	for _, key := range v.Keys() {
		if key == "allow" {
			return false
		}
		found = found || slices.Contains(matcherKeys, key)
	}
	return found
}

func (er endpointReader) nonEmpty(key string, v strictyaml.Value) []strictyaml.Value {
	vs, ok := v.List()
	if ok && len(vs) == 0 {
		v.Fail("%s is empty; list rules or remove the key", key)
	}
	return vs
}

func (er endpointReader) matcher(v strictyaml.Value, deny bool) {
	o, ok := v.Object(matcherKeys...)
	if !ok {
		return
	}
	m := Matcher{At: v.At()}
	mr := matcherReader{Object: o, e: er.e, m: &m, deny: deny}
	before := v.Errors()
	mr.read()
	if v.Errors() == before && !er.unknownProtocol() {
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
	if len(mr.Fields) == 0 {
		mr.Fail("the rule matches nothing; write what it is about")
		return
	}
	m.Method = mr.filled("method")
	m.Path = mr.filled("path")
	m.Command = mr.filled("command")
	m.Query = mr.query()
	m.OperationType = mr.Word("operation_type", "query", "mutation", "subscription", "*")
	if v, ok := mr.Fields["operation_type"]; ok && v.IsEmptyText() {
		v.Fail("the operation type is empty; write query, mutation, subscription or *")
	}
	m.OperationName = mr.nameGlob("operation_name")
	m.Fields = mr.fieldGlobs()
	m.Tool = mr.nameGlob("tool")
	m.Params = mr.params()
}

// filled reads a key whose text may not be empty.
func (mr matcherReader) filled(key string) string {
	v, ok := mr.Fields[key]
	if !ok {
		return ""
	}
	s, ok := v.Text()
	if ok && s == "" {
		v.Fail("%s is empty and would never match; write it or remove the key", key)
	}
	return s
}

// nameGlob reads a pattern for a name.
func (mr matcherReader) nameGlob(key string) string {
	s := mr.filled(key)
	if s != "" {
		checkNameGlob(mr.Fields[key], s)
	}
	return s
}

func checkNameGlob(v strictyaml.Value, s string) {
	if _, err := glob.Compile(s, '.'); err != nil {
		v.Fail("%s is not a valid pattern: %v", strictyaml.Quoted(s), err)
	}
}

func (mr matcherReader) fieldGlobs() []string {
	if v, ok := mr.Fields["fields"]; ok && v.IsEmptyList() {
		v.Fail("fields is empty; list root fields or remove the key")
	}
	var out []string
	for _, t := range mr.Texts("fields") {
		if t.S == "" {
			t.Fail("the field is empty; name a root field")
			continue
		}
		checkNameGlob(t.Value, t.S)
		out = append(out, t.S)
	}
	return out
}

// query reads patterns for query parameters: a text, or a map with any.
func (mr matcherReader) query() map[string][]string {
	v, ok := mr.Fields["query"]
	if !ok {
		return nil
	}
	es, ok := v.Entries()
	if ok && len(v.Keys()) == 0 {
		v.Fail("query is empty; name parameters or remove the key")
	}
	out := map[string][]string{}
	for _, e := range es {
		if e.Name == "" {
			e.Key.Fail("the parameter has no name; name it")
		}
		out[e.Name] = queryGlobs(e)
	}
	return out
}

func queryGlobs(e strictyaml.Entry) []string {
	if e.IsScalar() {
		s, ok := e.Value.Text()
		if !ok {
			return nil
		}
		checkNameGlob(e.Value, s)
		return []string{s}
	}
	o, ok := e.Object("any")
	if !ok {
		return nil
	}
	ts := o.Texts("any")
	if v, has := o.Fields["any"]; !has || v.IsEmptyList() {
		o.FailKey("any", "any is empty and would never match; list patterns")
	}
	var out []string
	for _, t := range ts {
		checkNameGlob(t.Value, t.S)
		out = append(out, t.S)
	}
	return out
}

func (mr matcherReader) params() map[string]string {
	v, ok := mr.Fields["params"]
	if !ok {
		return nil
	}
	es, ok := v.Entries()
	if ok && len(v.Keys()) == 0 {
		v.Fail("params is empty; name parameters or remove the key")
	}
	out := map[string]string{}
	for _, e := range es {
		s, ok := e.Value.Text()
		switch {
		case !ok:
		case e.Name == "":
			e.Key.Fail("the parameter has no name; name it")
		case s == "":
			e.Value.Fail("the pattern is empty and would never match; write one")
		default:
			checkNameGlob(e.Value, s)
			out[e.Name] = s
		}
	}
	return out
}
