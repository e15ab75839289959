package policy

import (
	"math"
	"slices"
	"strings"

	"github.com/splitpod/splitpod/pkg/core/policy/glob"
	"github.com/splitpod/splitpod/pkg/core/strictyaml"
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

func (n *network) middlewares(top strictyaml.Object) map[string]Middleware {
	out := map[string]Middleware{}
	v, ok := top.Fields["network_middlewares"]
	if !ok {
		return out
	}
	es, _ := v.Entries()
	if len(es) > MaxMiddlewares {
		v.Fail("%d middlewares are configured; %d are allowed", len(es), MaxMiddlewares)
	}
	orders := map[int]string{}
	for _, e := range es {
		n.checkKey(e)
		m, ok := n.middleware(e)
		if !ok {
			continue
		}
		if first, dup := orders[m.Order]; dup {
			e.Key.FailKey("order", "order %d is taken by %s; every middleware needs its own", m.Order, strictyaml.Quoted(first))
		} else {
			orders[m.Order] = e.Name
		}
		out[e.Name] = m
	}
	return out
}

func (n *network) middleware(e strictyaml.Entry) (Middleware, bool) {
	m := Middleware{Name: e.Name, At: e.Key.At()}
	o, ok := e.Object("name", "middleware", "order", "config", "on_error", "endpoints")
	if !ok {
		return m, false
	}
	m.Name = nameOf(o, e.Name)
	m.Middleware = implementation(o)
	if v, ok := o.Fields["order"]; ok {
		order, _ := v.Number(math.MinInt32, math.MaxInt32)
		m.Order = int(order)
	}
	m.FailOpen = o.Word("on_error", "fail_closed", "fail_open") == "fail_open"
	m.Config = readConfig(o, m.Middleware)
	sel := readSelectors(o, &m)
	if !m.FailOpen {
		n.checkOpaque(e, sel, m.Exclude)
	}
	return m, true
}

func implementation(o strictyaml.Object) string {
	s := o.Text("middleware")
	v, ok := o.Fields["middleware"]
	switch {
	case !ok || v.IsEmptyText():
		o.FailKey("middleware", "the middleware is missing; name a built-in or a registered one")
	case strings.HasPrefix(s, builtinPrefix) && !slices.Contains(builtins, s):
		v.Fail("%s is not a built-in; write %s, or a name without %s", strictyaml.Quoted(s), strings.Join(builtins, ", "), builtinPrefix)
	}
	return s
}

func readSelectors(o strictyaml.Object, m *Middleware) selectors {
	v, ok := o.Fields["endpoints"]
	if !ok {
		o.FailKey("endpoints", "the endpoints are missing; write endpoints: {include: [host]}")
		return selectors{}
	}
	eps, ok := v.Object("include", "exclude")
	if !ok {
		return selectors{}
	}
	include, exclude := eps.Texts("include"), eps.Texts("exclude")
	if inc, has := eps.Fields["include"]; !has || inc.IsEmptyList() {
		eps.FailKey("include", "the list of hosts is empty; name at least one")
	}
	if n := len(include) + len(exclude); n > MaxSelectors {
		v.Fail("%d hosts are listed; %d are allowed", n, MaxSelectors)
		return selectors{}
	}
	var sel selectors
	m.Include, sel.include = compileSelectors(include)
	m.Exclude, sel.exclude = compileSelectors(exclude)
	return sel
}

func compileSelectors(ts []strictyaml.Text) (texts []string, compiled []*glob.Selector) {
	for _, t := range ts {
		c, err := glob.CompileSelector(t.S)
		if err != nil {
			t.Fail("%s is not a host selector: %v", strictyaml.Quoted(t.S), err)
			continue
		}
		texts = append(texts, strings.ToLower(t.S))
		compiled = append(compiled, c)
	}
	return texts, compiled
}

// checkOpaque refuses a middleware that must not be skipped for endpoints that
// cannot be looked into.
func (n *network) checkOpaque(e strictyaml.Entry, sel selectors, exclude []string) {
	for i := range n.endpoints {
		p := &n.endpoints[i]
		if p.TLS == "skip" && sel.covers(p, exclude) {
			e.Key.FailKey("endpoints", "the host %s, line %d, has tls: skip and cannot pass through this middleware; exclude it or write on_error: fail_open",
				strictyaml.Quoted(p.Host), p.Value.At().Line)
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

// readConfig reads the free-form settings of a middleware.
func readConfig(o strictyaml.Object, implementation string) map[string]any {
	v, ok := o.Fields["config"]
	if !ok {
		if implementation == builtins[0] {
			o.FailKey("config", "the config is missing; write config: {mode: redact}")
		}
		return nil
	}
	size := 0
	out, ok := v.AnyMap(&size)
	if size > MaxConfigBytes {
		v.Fail("the config has %d bytes; %d are allowed", size, MaxConfigBytes)
	}
	if ok && implementation == builtins[0] {
		c, _ := v.Object("mode")
		if c.Text("mode") != "redact" {
			c.FailKey("mode", "the mode must be given; write mode: redact")
		}
	}
	return out
}
