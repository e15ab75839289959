package command

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/authority"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/proxy"
)

// maxExplained bounds the body that policy explain reads; no policy lets more be read.
const maxExplained = 32 << 20

// written is a request that is asked about as it would be sent: with header fields, and
// perhaps a body.
type written struct {
	snap   *decide.Snapshot
	permit decide.Permit
	facts  decide.Request // what the flags say
	host   string
	fields []string // "Name: value"
	body   []byte
	sent   bool // there is a body
}

// reading is what comes of reading a request.
type reading struct {
	facts   decide.Request
	refused *inspect.Error // it cannot be read, whatever the rules say
}

// readsFields prepares the reading of what flags name, if they name something to read.
func (x *explained) readsFields() error {
	if len(x.headers) == 0 && x.body == "" {
		return nil
	}
	switch {
	case x.upgrade || x.message || x.call != "" || x.tool != "" || x.operation != "" || len(x.fields) > 0:
		return errors.New("--header and --body are read as the daemon reads them; --upgrade, --message, --call, --tool, --operation and --field say what would be read: use either")
	case x.method == "" && x.body != "":
		x.method = "POST"
	case x.method == "":
		x.method = "GET"
	}
	for _, h := range x.headers {
		if name, _, ok := strings.Cut(h, ":"); !ok || name == "" || strings.ContainsAny(h, "\r\n") {
			return fmt.Errorf("--header %q: say name: value", h)
		}
	}
	if x.body == "" {
		return nil
	}
	f, err := os.Open(x.body)
	if err != nil {
		return fmt.Errorf("--body: %w", err)
	}
	defer f.Close()
	if x.content, err = io.ReadAll(io.LimitReader(f, maxExplained+1)); err != nil {
		return fmt.Errorf("--body: %w", err)
	}
	return nil
}

// written is the request with its fields; nil if none were named.
func (x *explained) written(snap *decide.Snapshot, permit decide.Permit, r *decide.Request) *written {
	if len(x.headers) == 0 && x.body == "" {
		return nil
	}
	return &written{snap: snap, permit: permit, facts: *r, host: x.host, fields: x.headers, body: x.content, sent: x.body != ""}
}

// read reads the request with these fields as proxy/judge.go does. What every client adds
// by itself, and decides nothing, is added.
func (w *written) read(fields []string) reading {
	head := fmt.Sprintf("%s %s HTTP/1.1\r\n", w.facts.Method, w.facts.Path)
	has := func(name string) bool {
		return slices.ContainsFunc(fields, func(f string) bool {
			have, _, _ := strings.Cut(f, ":")
			return strings.EqualFold(have, name)
		})
	}
	add := func(name, value string) {
		if !has(name) {
			fields = append(slices.Clone(fields), name+": "+value)
		}
	}
	add("Host", w.host)
	if w.sent && !has("Transfer-Encoding") {
		add("Content-Length", fmt.Sprint(len(w.body)))
	}
	if has("Upgrade") {
		add("Connection", "Upgrade")
		add("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==")
		add("Sec-WebSocket-Version", "13")
	}
	var out reading
	out.facts, out.refused = proxy.Facts(w.snap, w.permit, w.facts, []byte(head+strings.Join(fields, "\r\n")+"\r\n\r\n"), w.body)
	return out
}

// idle are the fields, and the body, that change nothing about the decision on a request
// that can be read.
func (w *written) idle(with reading) (out []string) {
	for i, f := range w.fields {
		if same(with, w.read(slices.Delete(slices.Clone(w.fields), i, i+1))) {
			name, _, _ := strings.Cut(f, ":")
			out = append(out, "the field "+authority.Quote(name)+" changes nothing here")
		}
	}
	other := *w
	other.body, other.sent = nil, false
	if w.sent && same(with, other.read(w.fields)) {
		out = append(out, "the body is not read here")
	}
	return out
}

// same reports whether two readings, of which the first was not refused, lead to one
// decision.
func same(a, b reading) bool { return b.refused == nil && reflect.DeepEqual(a.facts, b.facts) }
