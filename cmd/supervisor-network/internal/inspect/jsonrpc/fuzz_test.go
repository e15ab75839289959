package jsonrpc

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/content"
)

// sent is a frame as encoding/json reads it, which takes any case and the last of
// several.
type sent struct {
	JSONRPC string
	Method  *string
	Params  json.RawMessage
}

// loosely reads a body with encoding/json.
func loosely(t *testing.T, data []byte) []sent {
	t.Helper()
	all := make([]sent, 1)
	var into any = &all[0]
	if bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("[")) {
		into = &all
	}
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatal(err)
	}
	return all
}

// same fails unless a call is what encoding/json reads, both into a struct and into
// a map.
func same(t *testing.T, c decide.Call, s sent, d Dialect) {
	t.Helper()
	if s.JSONRPC != "2.0" || *s.Method != c.Method {
		t.Fatalf("method %q here, %q there", c.Method, *s.Method)
	}
	params := map[string]json.RawMessage{}
	var named struct{ Name json.RawMessage }
	if bytes.HasPrefix(s.Params, []byte("{")) {
		if err := errors.Join(json.Unmarshal(s.Params, &params), json.Unmarshal(s.Params, &named)); err != nil {
			t.Fatal(err)
		}
	}
	texts := 0
	for k, v := range params {
		if v[0] == '"' {
			if texts++; c.Params[k] != text(v) {
				t.Fatalf("%q is %q here, %s there", k, c.Params[k], v)
			}
		}
	}
	if texts != len(c.Params) {
		t.Fatalf("%d texts here, %d there", len(c.Params), texts)
	}
	if name := text(named.Name); c.Tool != "" && c.Tool != name || c.Method == toolsCall && d.MCP && c.Tool != name {
		t.Fatalf("tool %q here, %q there", c.Tool, name)
	}
}

// text is what a value says if it is a text.
func text(v json.RawMessage) (s string) {
	if json.Unmarshal(v, &s) != nil {
		return ""
	}
	return s
}

// FuzzBody: a body that is accepted has the calls that encoding/json finds, in order.
func FuzzBody(f *testing.F) {
	for _, c := range plain {
		f.Add([]byte(c.body), false, false)
	}
	for _, c := range mcp {
		f.Add([]byte(c.body), true, true)
	}
	f.Fuzz(func(t *testing.T, data []byte, isMCP, _ bool) {
		d := Dialect{MCP: isMCP}
		got, err := Read(head(), data, d)
		if err != nil {
			if e, ok := errors.AsType[*content.Error](err); !ok || len(e.Detail) > 200 {
				t.Fatalf("refused with %v", err)
			}
			return
		}
		if len(got) == 0 || len(got) > MaxBatch {
			t.Fatalf("%d calls", len(got))
		}
		i := 0
		for _, s := range loosely(t, data) {
			if i == len(got) {
				t.Fatal("a call was not found")
			}
			if s.Method == nil {
				if !got[i].Response {
					t.Fatal("a response was taken for a call")
				}
				i++
				continue
			}
			same(t, got[i], s, d)
			i++
		}
		if i != len(got) {
			t.Fatal("a call was made up")
		}
	})
}
