package jsonrpc

import (
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/strictjson"
)

var frameNames = strictjson.Names{"jsonrpc", "method", "params", "id", "result", "error"}

// frame is one element of a body.
type frame struct {
	version, method     string
	id, params          strictjson.Kind // zero: not there
	hasMethod           bool
	hasResult, hasError bool
	parameters          []parameter // of an object
}

// parameter is a member of params.
type parameter struct {
	name, text string
	kind       strictjson.Kind
}

// frame reads the next value as a call or a response.
func (in *reader) frame() error {
	if in.Kind() != strictjson.Object {
		return bad("a JSON-RPC body is an object, or an array of objects")
	}
	var f frame
	err := in.Object(frameNames, func(key string) (err error) {
		switch key {
		case "jsonrpc":
			f.version, err = in.text("the version of a JSON-RPC call is the text 2.0")
		case "method":
			f.hasMethod = true
			f.method, err = in.text("the method of a JSON-RPC call is a text")
		case "params":
			f.params = in.Kind()
			f.parameters, err = in.params()
		case "id":
			f.id = in.Kind()
		case "result":
			f.hasResult = true
		case "error":
			f.hasError = true
		}
		return err
	})
	if err != nil {
		return err
	}
	return in.add(&f)
}

func (in *reader) text(detail string) (string, error) {
	if in.Kind() != strictjson.String {
		return "", bad(detail)
	}
	return in.String()
}

// params reads the members of params if it is an object. No two of them differ only
// in case: to some servers they are one.
func (in *reader) params() (out []parameter, err error) {
	if in.Kind() != strictjson.Object {
		return nil, nil
	}
	err = in.Object(strictjson.Names{}, func(key string) (err error) {
		p := parameter{name: key, kind: in.Kind()}
		if p.kind == strictjson.String {
			p.text, err = in.String()
		}
		out = append(out, p)
		return err
	})
	return out, err
}

// add judges what the members of a frame mean together.
func (in *reader) add(f *frame) error {
	switch {
	case f.version != "2.0":
		return bad("the version of a JSON-RPC call is the text 2.0")
	case f.id != 0 && f.id&(strictjson.String|strictjson.Number|strictjson.Null) == 0:
		return bad("the id of a JSON-RPC call is a text, a number or null")
	case f.hasMethod && (f.hasResult || f.hasError):
		return bad("a JSON-RPC frame is either a call or a response")
	case f.hasMethod:
		return in.call(f)
	case f.hasResult == f.hasError || f.id == 0:
		return bad("a JSON-RPC response has an id, and either a result or an error")
	}
	in.calls = append(in.calls, decide.Call{Response: true})
	return nil
}

func (in *reader) call(f *frame) error {
	if f.method == "" {
		return bad("the method of a JSON-RPC call is not empty")
	}
	if f.params != 0 && f.params&(strictjson.Object|strictjson.Array|strictjson.Null) == 0 {
		return bad("the params of a JSON-RPC call are an object or an array")
	}
	c := decide.Call{Method: f.method, Params: texts(f.parameters), Names: names(f.parameters), Unnamed: f.params == strictjson.Array}
	if in.dialect.MCP {
		if err := in.checkMCP(f); err != nil {
			return err
		}
		if c.Method == toolsCall {
			c.Tool = c.Params["name"]
		}
	} else {
		c.Tool = c.Params["name"] // rules ask for the parameter under this name
	}
	in.calls = append(in.calls, c)
	return nil
}

// names are those of all parameters, as rules compare them.
func names(all []parameter) (out []string) {
	for _, p := range all {
		out = append(out, decide.Folded(p.name))
	}
	return out
}

// texts are the parameters that are texts, nil if none is.
func texts(all []parameter) map[string]string {
	var out map[string]string
	for _, p := range all {
		if p.kind == strictjson.String {
			if out == nil {
				out = make(map[string]string)
			}
			out[p.name] = p.text
		}
	}
	return out
}
