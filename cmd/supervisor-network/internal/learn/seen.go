package learn

import (
	"net/http"
	"strings"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/propose"
	"github.com/splitpod/splitpod/pkg/core"
)

// Limits of what one program did at one destination.
const (
	MaxRequests = 64  // different rules; more become one for each method
	MaxMethods  = 16  // of those
	maxPath     = 256 // bytes of a path; what is behind them is anything
)

// anyPath is the pattern that every path matches.
const anyPath = "**"

// request is a rule of requests that were seen.
type request struct {
	Method string
	Path   string // a pattern
	// Socket and Plain say that such requests opened a WebSocket, and that some did not.
	Socket bool `json:",omitempty"`
	Plain  bool `json:",omitempty"`
}

// seen is what one program did at one destination.
type seen struct {
	Host     string    `json:"host"`
	Port     uint16    `json:"port"`
	Binary   string    `json:"binary"`
	Count    uint64    `json:"count"`
	Requests []request `json:"requests,omitempty"`
	// Raw says that bytes passed in which no request was read.
	Raw bool `json:"other,omitempty"`
	// Wide says that there were too many different requests, and only methods are told
	// apart.
	Wide bool `json:"wide,omitempty"`
	// Slash says that there was an escaped slash in a path.
	Slash bool `json:"slash,omitempty"`
	// Unnamed counts requests that no rule can name.
	Unnamed uint64 `json:"unnamed,omitempty"`
}

// add notes an event and reports whether anything but a count changed.
func (e *seen) add(ev *core.Event) bool {
	e.Count += ev.Occurrences()
	if ev.Method == "" {
		raw := ev.BytesUp > 0 || ev.BytesDn > 0
		changed := raw && !e.Raw
		e.Raw = e.Raw || raw
		return changed
	}
	r, ok := ruleFor(ev)
	if !ok || !e.take(r) {
		e.Unnamed += ev.Occurrences()
		return e.Unnamed == ev.Occurrences()
	}
	return true
}

// ruleFor is the rule about a request and its like.
func ruleFor(ev *core.Event) (request, bool) {
	path, rest := ev.Path, ""
	if len(path) > maxPath {
		path, rest = path[:strings.LastIndexByte(path[:maxPath], '/')+1], anyPath
	}
	path, err := http1.CanonicalPath(path, true)
	if err != nil || ev.Method != strings.ToUpper(ev.Method) {
		return request{}, false
	}
	m, ok := propose.MatcherWithSlash(ev.Method, path)
	socket := ev.Method == http.MethodGet && ev.Status == http.StatusSwitchingProtocols
	return request{Method: strings.Clone(m.Method), Path: m.Path + rest, Socket: socket, Plain: !socket}, ok
}

// take adds a rule, or makes one that is there wider. It returns false if there is no
// place for it.
func (e *seen) take(r request) bool {
	e.Slash = e.Slash || strings.Contains(r.Path, "%2F")
	if e.Wide {
		r.Path = anyPath
	}
	for i := range e.Requests {
		if have := &e.Requests[i]; have.Method == r.Method && have.Path == r.Path {
			have.Socket, have.Plain = have.Socket || r.Socket, have.Plain || r.Plain
			return true
		}
	}
	switch {
	case !e.Wide && len(e.Requests) >= MaxRequests:
		e.widen()
		return e.take(r)
	case e.Wide && len(e.Requests) >= MaxMethods:
		return false
	}
	e.Requests = append(e.Requests, r)
	return true
}

// widen forgets paths.
func (e *seen) widen() {
	all := e.Requests
	e.Requests, e.Wide = nil, true
	for _, r := range all {
		if !e.take(r) {
			e.Unnamed++
		}
	}
}
