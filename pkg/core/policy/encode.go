package policy

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v3"

	"github.com/splitpod/splitpod/pkg/core/strictyaml"
)

// Encode writes a Document as a policy file. The same Document gives the same bytes,
// and Parse of the bytes gives an equal Document, apart from positions and from marks
// that no file can set. Texts are quoted, whatever is in them, so that what a workload
// wrote stays a value, and is seen as what it is.
func Encode(doc *Document) []byte {
	top := newMapping()
	top.number("version", int64(max(doc.Version, 1)))
	top.static(doc)
	if len(doc.Network) > 0 {
		rules := newMapping()
		for _, name := range slices.Sorted(maps.Keys(doc.Network)) {
			rules.add(name, ruleNode(name, doc.Network[name]))
		}
		top.add("network_policies", rules.node)
	}
	if len(doc.Middlewares) > 0 {
		ms := newMapping()
		for _, name := range slices.Sorted(maps.Keys(doc.Middlewares)) {
			ms.add(name, middlewareNode(name, doc.Middlewares[name]))
		}
		top.add("network_middlewares", ms.node)
	}
	return strictyaml.Write(top.node)
}

// mapping builds a YAML map in order.
type mapping struct{ node *yaml.Node }

func newMapping() mapping { return mapping{&yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}} }

func (m mapping) add(key string, v *yaml.Node) {
	m.node.Content = append(m.node.Content, strictyaml.KeyNode(key), v)
}

// text adds a text that is not empty.
func (m mapping) text(key, s string) {
	if s != "" {
		m.add(key, strictyaml.TextNode(s))
	}
}

func (m mapping) word(key, s string) {
	if s != "" {
		m.add(key, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s})
	}
}

func (m mapping) flag(key string, b, otherwise bool) {
	if b != otherwise {
		m.add(key, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: strconv.FormatBool(b)})
	}
}

func (m mapping) number(key string, n int64) {
	m.add(key, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: strconv.FormatInt(n, 10)})
}

func (m mapping) texts(key string, list []string) {
	if len(list) > 0 {
		m.add(key, textsNode(list))
	}
}

func textsNode(list []string) *yaml.Node {
	seq := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
	for _, s := range list {
		seq.Content = append(seq.Content, strictyaml.TextNode(s))
	}
	return seq
}

func sequence(nodes []*yaml.Node) *yaml.Node {
	return &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Content: nodes}
}

func (m mapping) static(doc *Document) {
	if fs := doc.Filesystem; fs.Present {
		f := newMapping()
		f.flag("include_workdir", fs.IncludeWorkdir, true)
		f.texts("read_only", fs.ReadOnly)
		f.texts("read_write", fs.ReadWrite)
		m.add("filesystem_policy", f.node)
	}
	if c := doc.Landlock.Compatibility; c != "" && c != BestEffort {
		l := newMapping()
		l.word("compatibility", string(c))
		m.add("landlock", l.node)
	}
	if doc.Process != (Process{}) {
		p := newMapping()
		p.text("run_as_user", doc.Process.RunAsUser)
		p.text("run_as_group", doc.Process.RunAsGroup)
		m.add("process", p.node)
	}
}

func ruleNode(key string, r Rule) *yaml.Node {
	m := newMapping()
	if r.Name != key {
		m.text("name", r.Name)
	}
	var endpoints, binaries []*yaml.Node
	for i := range r.Endpoints {
		endpoints = append(endpoints, endpointNode(&r.Endpoints[i]))
	}
	for _, b := range r.Binaries {
		e := newMapping()
		e.text("path", b.Path)
		binaries = append(binaries, e.node)
	}
	m.add("endpoints", sequence(endpoints))
	if len(binaries) > 0 {
		m.add("binaries", sequence(binaries))
	}
	return m.node
}

func middlewareNode(key string, w Middleware) *yaml.Node {
	m := newMapping()
	if w.Name != key {
		m.text("name", w.Name)
	}
	m.text("middleware", w.Middleware)
	m.number("order", int64(w.Order))
	if len(w.Config) > 0 {
		var n yaml.Node
		if err := n.Encode(w.Config); err != nil {
			panic(fmt.Sprintf("BUG: a middleware's config cannot be written: %v", err))
		}
		m.add("config", &n)
	}
	if w.FailOpen {
		m.word("on_error", "fail_open")
	}
	hosts := newMapping()
	hosts.texts("include", w.Include)
	hosts.texts("exclude", w.Exclude)
	m.add("endpoints", hosts.node)
	return m.node
}
