package learn

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/propose"
	"github.com/splitpod/splitpod/pkg/core/policy"
	"github.com/splitpod/splitpod/pkg/core/policy/glob"
)

// Export writes the smallest policy that covers what was seen: a rule for each
// destination and program, with its requests if it saw nothing but requests, and with
// WebSocket messages. Its first lines say what it does not cover, and where it covers
// more than was seen.
func (b *Book) Export() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	w := &writer{doc: &policy.Document{Network: make(map[string]policy.Rule)}, slashes: make(map[string]bool)}
	list := b.list()
	w.say("What was seen while learning: read it before it is used. %d destinations by program.", len(list))
	w.say("A host stands for internal addresses too, if its name leads there; only public ones were let pass.")
	w.say("Requests are told apart by method and path, not by what GraphQL or JSON-RPC bodies said.")
	for _, s := range list {
		if s.Slash {
			w.slashes[s.place()] = true
		}
	}
	for _, s := range list {
		w.add(s)
	}
	if b.lost > 0 {
		w.say("%d connections to further destinations are not in it.", b.lost)
	}
	body := policy.Encode(w.doc)
	if _, _, err := policy.Parse("export", body); err != nil {
		w.say("It does not pass policy check as it is: %+q", err.Error())
	}
	return append([]byte(w.head.String()), body...)
}

// place names a destination.
func (e *seen) place() string { return fmt.Sprintf("%s:%d", e.Host, e.Port) }

// writer makes the export.
type writer struct {
	head    strings.Builder
	doc     *policy.Document
	slashes map[string]bool // places with escaped slashes, which all rules of a place agree on
}

func (w *writer) say(format string, args ...any) {
	fmt.Fprintf(&w.head, "# "+format+"\n", args...)
}

// add writes the rule of one destination and program.
func (w *writer) add(s *seen) {
	if !s.Raw && len(s.Requests) == 0 {
		w.say("Left out, because no byte and no request that a rule can name passed: %+q, port %d, %+q", s.Host, s.Port, s.Binary)
		return
	}
	name := propose.RuleName(s.Host, s.Port)
	for _, taken := w.doc.Network[name]; taken; _, taken = w.doc.Network[name] {
		name += "_2"
	}
	r := s.rule(name, w.slashes[s.place()])
	if _, _, err := policy.Parse("rule", policy.Encode(&policy.Document{Network: map[string]policy.Rule{name: r}})); err != nil || strings.Contains(s.Host, "*") {
		w.say("Left out, because no rule can name it: %+q, port %d, %+q", s.Host, s.Port, s.Binary)
		return
	}
	w.doc.Network[name] = r
	switch {
	case s.Raw && len(s.Requests) > 0:
		w.say("%s: requests and other bytes were seen, so that requests are not judged.", name)
	case s.Raw:
	case s.Wide:
		w.say("%s: there were too many different requests; each method may ask for every path.", name)
	}
	if s.Unnamed > 0 && !s.Raw {
		w.say("%s: %d requests with methods or paths that no rule can name are not covered.", name, s.Unnamed)
	}
}

func (e *seen) rule(name string, slash bool) policy.Rule {
	r := policy.Rule{Name: name, Endpoints: e.endpoints(slash)}
	if e.Binary != "" {
		r.Binaries = []policy.Binary{{Path: propose.LiteralBinary(e.Binary)}}
	}
	return r
}

// endpoints are one for all requests, if all were, and one for each kind of WebSocket.
func (e *seen) endpoints(slash bool) []policy.Endpoint {
	base := policy.Endpoint{Host: strings.ToLower(e.Host), Ports: []uint16{e.Port}}
	if e.Raw {
		return []policy.Endpoint{base}
	}
	base.Enforce, base.AllowEncodedSlash = true, slash
	requests := slices.SortedFunc(slices.Values(e.Requests), func(a, b request) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Method, b.Method))
	})
	rest, sockets := base, []policy.Endpoint(nil)
	rest.Protocol = policy.ProtocolREST
	for _, r := range requests {
		if e.socket(r) {
			one := base
			one.Protocol, one.PathScope = policy.ProtocolWebSocket, r.Path
			one.Allow = []policy.Matcher{{Method: r.Method, Path: r.Path}, {Method: decide.MethodText, Path: r.Path}}
			sockets = append(sockets, one)
			continue
		}
		rest.Allow = append(rest.Allow, policy.Matcher{Method: r.Method, Path: r.Path})
	}
	if len(rest.Allow) == 0 {
		return sockets
	}
	return append([]policy.Endpoint{rest}, sockets...)
}

// socket reports whether a rule gets an endpoint of its own, whose messages are judged.
// It does not where the same paths were also requested in other ways, which that
// endpoint would refuse; the handshake is then a request like others.
func (e *seen) socket(r request) bool {
	if !r.Socket || r.Plain || e.Wide {
		return false
	}
	scope := glob.CompileScope(r.Path)
	return scope.Err() == nil && !slices.ContainsFunc(e.Requests, func(o request) bool { return o.Plain && scope.Meets(o.Path) })
}
