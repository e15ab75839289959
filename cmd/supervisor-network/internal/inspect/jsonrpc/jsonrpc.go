// Package jsonrpc reads what a body of JSON-RPC 2.0, or of MCP, calls.
//
// It answers the threat of a call that rules do not see: in a batch, behind a second
// key of the same name, behind a key in another case, under a method or tool that
// only looks like another. Methods and tools are never normalised; what a lenient
// server might take for one that MCP knows is refused. It does not read the
// arguments of tools.
//
// Invariant: what is returned is everything the body calls, in order, or there is an
// error. Work and memory are bounded by the size of the body.
//
// Sources: JSON-RPC 2.0 sections 4 to 6; MCP revisions 2025-03-26 to 2026-07-28.
package jsonrpc

import (
	"errors"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/content"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/strictjson"
	"github.com/splitpod/splitpod/pkg/core"
)

// MaxBatch is how many calls and responses one body may have.
const MaxBatch = 100

// Dialect is which of the protocols a body is read as. The zero value is JSON-RPC.
type Dialect struct {
	MCP bool // methods that MCP knows have its parameters; responses may be sent
}

func bad(detail string) error {
	return &content.Error{Status: 400, Reason: core.ReasonInvalidJSONRPC, Detail: detail}
}

// readable gives an error of the JSON reader its reason.
func readable(err error) error {
	if e, ok := errors.AsType[*strictjson.Error](err); ok {
		return bad(e.Error())
	}
	return err
}

// Read returns the calls of the body of a request by POST, answers to calls of the
// server among them, or a [content.Error]. There is at least one.
func Read(h *content.Head, body []byte, d Dialect) ([]decide.Call, error) {
	types := []string{"application/json", "application/json-rpc", "application/jsonrequest"}
	if d.MCP {
		types = types[:1]
	}
	if err := h.JSON(core.ReasonInvalidJSONRPC, types...); err != nil {
		return nil, err
	}
	r, err := strictjson.New(body)
	if err != nil {
		return nil, readable(err)
	}
	in := reader{Reader: r, dialect: d}
	if err = in.frames(); err == nil {
		err = r.End()
	}
	if err == nil && d.MCP {
		err = in.mirrored(h)
	}
	if err != nil {
		return nil, readable(err)
	}
	return in.calls, nil
}

// reader reads one body.
type reader struct {
	*strictjson.Reader
	dialect Dialect
	calls   []decide.Call
}

func (in *reader) frames() error {
	switch in.Kind() {
	case strictjson.Object:
		return in.frame()
	case strictjson.Array:
		n := 0
		err := in.Array(func(i int) error {
			if n = i + 1; n > MaxBatch {
				return bad("a JSON-RPC batch has at most 100 elements")
			}
			return in.frame()
		})
		if err == nil && n == 0 {
			err = bad("a JSON-RPC batch is not empty")
		}
		return err
	default:
		return bad("a JSON-RPC body is an object, or an array of objects")
	}
}
