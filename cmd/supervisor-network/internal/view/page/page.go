// Package page serves the live view over HTTP: a page, its script and style, and the
// data behind it as JSON. Without an admin token it reads and never changes anything;
// with one, whoever shows the token may look, and decide about proposals.
//
// It answers the threat of a view that becomes a way out. What it shows are names that
// the workload chose, so that whoever can read them can be told something: only this
// pod's own loopback may ask, which the workload has no part in and the pod's
// neighbours do not reach, and only by a loopback name, so that a page of the internet
// in an operator's browser cannot ask either. And that of names that become markup: the
// script writes text only, and the browser is told to load and run nothing but the files
// here. A program in the pod's network that forwards to loopback is answered by the
// token alone: without one it can read the view.
//
// Invariant: a decision needs the token, in a field that no page of another origin can
// set, and is carried out by whoever was given to New, with the hash of what was looked
// at; this package knows of no other way to change anything.
package page

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/view"
)

//go:embed assets
var assets embed.FS

// files are what is served, by path.
var files = map[string]struct{ name, kind string }{
	"/":         {"index.html", "text/html; charset=utf-8"},
	"/view.js":  {"view.js", "text/javascript; charset=utf-8"},
	"/view.css": {"view.css", "text/css; charset=utf-8"},
	"/icon.svg": {"icon.svg", "image/svg+xml"},
}

// policy is the page's Content-Security-Policy.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; " +
	"form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// fresh is how long a snapshot is given to whoever asks, so that readers cost little
// however many and hasty they are.
const fresh = 200 * time.Millisecond

// Handler serves the view. Make it with New; safe for concurrent use.
type Handler struct {
	snapshot func() *view.Snapshot
	options  Options

	mu   sync.Mutex
	body []byte    // guarded by mu
	made time.Time // guarded by mu
}

// Options are what a Handler asks of those who ask it.
type Options struct {
	Token  Token   // file of the token that has to be shown; "": none has to
	Decide Decider // with a token; nil: nothing can be decided
	// Refused is told of every question that was not answered for who asked it; nil:
	// nobody is. It may be called by several goroutines.
	Refused func(r *http.Request, status int, why Refusal)
}

// Refusal is why somebody is not answered.
type Refusal int

// The refusals.
const (
	Stranger   Refusal = iota // not of this pod's loopback, or sent here by another page
	NoToken                   // none was shown
	WrongToken                // another one was
	Unreadable                // the file with the token holds none
)

func (h *Handler) refused(w http.ResponseWriter, r *http.Request, status int, why Refusal, text string) {
	if h.options.Refused != nil {
		h.options.Refused(r, status, why)
	}
	http.Error(w, text, status)
}

// New makes a Handler that shows what snapshot returns.
func New(snapshot func() *view.Snapshot, opt Options) *Handler {
	return &Handler{snapshot: snapshot, options: opt}
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	deciding := r.Method == http.MethodPost && r.URL.Path == "/decision" && h.options.Token != "" && h.options.Decide != nil
	if !deciding && r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "the view is only read", http.StatusMethodNotAllowed)
		return
	}
	if !local(r) {
		h.refused(w, r, http.StatusForbidden, Stranger, "the view is for this pod's loopback only, by the name localhost; use kubectl port-forward")
		return
	}
	head := w.Header()
	head.Set("Content-Security-Policy", policy)
	head.Set("X-Content-Type-Options", "nosniff")
	head.Set("Referrer-Policy", "no-referrer")
	head.Set("Cross-Origin-Resource-Policy", "same-origin")
	head.Set("Cross-Origin-Opener-Policy", "same-origin")
	head.Set("Cache-Control", "no-store")
	if (deciding || r.URL.Path == "/view.json") && !h.admitted(w, r) {
		return
	}
	switch {
	case deciding:
		h.decide(w, r)
		return
	case r.URL.Path == "/view.json":
		h.data(w)
		return
	}
	f, ok := files[r.URL.Path]
	if !ok {
		http.Error(w, "there is no such page", http.StatusNotFound)
		return
	}
	body, err := assets.ReadFile("assets/" + f.name)
	if err != nil {
		panic(fmt.Sprintf("BUG: %s is not embedded: %v", f.name, err))
	}
	head.Set("Content-Type", f.kind)
	_, _ = w.Write(body)
}

// admitted answers whoever does not show the token that is wanted. The page itself
// holds nothing, and asks for it.
func (h *Handler) admitted(w http.ResponseWriter, r *http.Request) bool {
	if h.options.Token == "" {
		return true
	}
	switch err := h.options.Token.Shown(r); {
	case err == nil:
		return true
	case errors.Is(err, ErrToken):
		w.Header().Set("WWW-Authenticate", "Bearer")
		why := WrongToken
		if len(r.Header["Authorization"]) == 0 {
			why = NoToken
		}
		h.refused(w, r, http.StatusUnauthorized, why, err.Error())
	default: // what is wrong with the file is not for everybody
		h.refused(w, r, http.StatusServiceUnavailable, Unreadable, "the admin token cannot be read by the daemon")
	}
	return false
}

// forget has the next question answered anew.
func (h *Handler) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.body = nil
}

func (h *Handler) data(w http.ResponseWriter) {
	body, err := h.encoded()
	if err != nil {
		http.Error(w, "the view cannot be encoded", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body)
}

func (h *Handler) encoded() ([]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.body != nil && time.Since(h.made) < fresh {
		return h.body, nil
	}
	body, err := json.Marshal(h.snapshot())
	if err != nil {
		return nil, err
	}
	h.body, h.made = body, time.Now()
	return body, nil
}

// local reports whether a request comes from 127.0.0.1 or ::1 and names the place so.
// Other loopback addresses do not count: service meshes deliver what comes from outside
// from one of them. Nor does what a proxy says that it forwards.
func local(r *http.Request) bool {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !loopback(from.Addr().Unmap()) {
		return false
	}
	for _, field := range []string{"Forwarded", "X-Forwarded-For", "Via"} {
		if r.Header.Get(field) != "" {
			return false
		}
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if host == "localhost" {
		return true
	}
	if len(host) > 2 && host[0] == '[' && host[len(host)-1] == ']' {
		host = host[1 : len(host)-1]
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && loopback(addr)
}

func loopback(a netip.Addr) bool {
	return a == netip.AddrFrom4([4]byte{127, 0, 0, 1}) || a == netip.IPv6Loopback()
}
