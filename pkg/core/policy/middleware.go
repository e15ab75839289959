package policy

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/splitpod/splitpod/pkg/core/policy/glob"
)

// Limits of network_middlewares.
const (
	MaxMiddlewares = 10
	MaxSelectors   = 32      // host selectors of one middleware, both lists together
	MaxConfigBytes = 1 << 16 // of one middleware's config, as text
)

// builtins are the middlewares that are part of the product; their prefix is
// reserved.
var builtins = []string{"openshell/regex"}

const builtinPrefix = "openshell/"

// selectors are the compiled hosts of a middleware.
type selectors struct {
	include, exclude []*glob.Selector
}

func (n *network) middlewares(top object) map[string]Middleware {
	out := map[string]Middleware{}
	v, ok := top.fields["network_middlewares"]
	if !ok {
		return out
	}
	es, _ := v.entries()
	if len(es) > MaxMiddlewares {
		v.fail("%d middlewares are configured; %d are allowed", len(es), MaxMiddlewares)
	}
	orders := map[int]string{}
	for _, e := range es {
		e.checkKey()
		m, ok := n.middleware(e)
		if !ok {
			continue
		}
		if first, dup := orders[m.Order]; dup {
			e.missingIn("order", "order %d is taken by %s; every middleware needs its own", m.Order, quoted(first))
		} else {
			orders[m.Order] = e.name
		}
		out[e.name] = m
	}
	return out
}

// missingIn reports a problem of a key of the entry at the entry itself.
func (e entry) missingIn(key, format string, args ...any) {
	e.r.report(e.key.node, join(e.value.path, key), format, args...)
}

func (n *network) middleware(e entry) (Middleware, bool) {
	m := Middleware{Name: e.name, At: e.key.at()}
	o, ok := e.object("name", "middleware", "order", "config", "on_error", "endpoints")
	if !ok {
		return m, false
	}
	m.Name = o.name(e.name)
	m.Middleware = o.implementation()
	if v, ok := o.fields["order"]; ok {
		order, _ := v.number(math.MinInt32, math.MaxInt32)
		m.Order = int(order)
	}
	m.FailOpen = o.word("on_error", "fail_closed", "fail_open") == "fail_open"
	m.Config = o.config(m.Middleware)
	sel := o.selectors(&m)
	if !m.FailOpen {
		n.checkOpaque(e, sel, m.Exclude)
	}
	return m, true
}

func (o object) implementation() string {
	s := o.text("middleware")
	v, ok := o.fields["middleware"]
	switch {
	case !ok || v.emptyText():
		o.missing("middleware", "the middleware is missing; name a built-in or a registered one")
	case strings.HasPrefix(s, builtinPrefix) && !slices.Contains(builtins, s):
		v.fail("%s is not a built-in; write %s, or a name without %s", quoted(s), strings.Join(builtins, ", "), builtinPrefix)
	}
	return s
}

func (o object) selectors(m *Middleware) selectors {
	v, ok := o.fields["endpoints"]
	if !ok {
		o.missing("endpoints", "the endpoints are missing; write endpoints: {include: [host]}")
		return selectors{}
	}
	eps, ok := v.object("include", "exclude")
	if !ok {
		return selectors{}
	}
	include, exclude := eps.texts("include"), eps.texts("exclude")
	if inc, has := eps.fields["include"]; !has || inc.emptyList() {
		eps.missing("include", "the list of hosts is empty; name at least one")
	}
	if n := len(include) + len(exclude); n > MaxSelectors {
		v.fail("%d hosts are listed; %d are allowed", n, MaxSelectors)
		return selectors{}
	}
	var sel selectors
	m.Include, sel.include = compileSelectors(include)
	m.Exclude, sel.exclude = compileSelectors(exclude)
	return sel
}

func compileSelectors(ts []textAt) (texts []string, compiled []*glob.Selector) {
	for _, t := range ts {
		c, err := glob.CompileSelector(t.s)
		if err != nil {
			t.fail("%s is not a host selector: %v", quoted(t.s), err)
			continue
		}
		texts = append(texts, strings.ToLower(t.s))
		compiled = append(compiled, c)
	}
	return texts, compiled
}

// checkOpaque refuses a middleware that must not be skipped for endpoints that
// cannot be looked into.
func (n *network) checkOpaque(e entry, sel selectors, exclude []string) {
	for i := range n.endpoints {
		p := &n.endpoints[i]
		if p.TLS == "skip" && sel.covers(p, exclude) {
			e.missingIn("endpoints", "the host %s, line %d, has tls: skip and cannot pass through this middleware; exclude it or write on_error: fail_open",
				quoted(p.Host), p.value.at().Line)
			return
		}
	}
}

func (s selectors) covers(p *placed, exclude []string) bool {
	may := func(c *glob.Selector) bool { return c.MayCover(p.host) }
	if !slices.ContainsFunc(s.include, may) {
		return false
	}
	if _, exact := p.host.Exact(); exact {
		return !slices.ContainsFunc(s.exclude, may)
	}
	return !slices.Contains(exclude, p.Host)
}

// config reads the free-form settings of a middleware.
func (o object) config(implementation string) map[string]any {
	v, ok := o.fields["config"]
	if !ok {
		if implementation == builtins[0] {
			o.missing("config", "the config is missing; write config: {mode: redact}")
		}
		return nil
	}
	size := 0
	out, ok := v.anyMap(&size)
	if size > MaxConfigBytes {
		v.fail("the config has %d bytes; %d are allowed", size, MaxConfigBytes)
	}
	if ok && implementation == builtins[0] {
		c, _ := v.object("mode")
		if c.text("mode") != "redact" {
			c.missing("mode", "the mode must be given; write mode: redact")
		}
	}
	return out
}

func (v value) anyMap(size *int) (map[string]any, bool) {
	es, ok := v.entries()
	out := make(map[string]any, len(es))
	for _, e := range es {
		*size += len(e.name)
		out[e.name] = e.value.any(size)
	}
	return out, ok
}

// any reads a value of any type. Messages never repeat it, it could be private.
func (v value) any(size *int) any {
	switch v.node.Kind {
	case yaml.MappingNode:
		m, _ := v.anyMap(size)
		return m
	case yaml.SequenceNode:
		vs, _ := v.list()
		out := make([]any, len(vs))
		for i, e := range vs {
			out[i] = e.any(size)
		}
		return out
	case yaml.ScalarNode:
		*size += len(v.node.Value)
		return v.anyScalar()
	}
	return nil
}

func (v value) anyScalar() any {
	s := v.node.Value
	switch {
	case !plain(v.node) || v.node.Tag == "!!str" && !slices.Contains(legacy, strings.ToLower(s)):
		if strings.ContainsFunc(s, func(c rune) bool { return c == 0 }) {
			v.fail("the text has an invisible character in it; remove it")
		}
		return s
	case s == "true" || s == "false":
		return s == "true"
	case s == "null":
		return nil
	case v.node.Tag == "!!int":
		if n, err := strconv.ParseInt(s, 10, 64); err == nil && strconv.FormatInt(n, 10) == s {
			return n
		}
	case v.node.Tag == "!!float":
		if f, err := strconv.ParseFloat(s, 64); err == nil && !math.IsInf(f, 0) && !math.IsNaN(f) {
			return f
		}
	}
	v.fail("YAML readers differ about this value; put it in quotes, or write true, false, null or a plain number")
	return nil
}
