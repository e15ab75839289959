package jsonrpc

import (
	"encoding/base64"
	"strings"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/content"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/strictjson"
)

const toolsCall = "tools/call"

// member is a parameter that a method of MCP has.
type member struct {
	name     string
	kinds    strictjson.Kind
	required bool
}

const (
	required = true
	token    = strictjson.String | strictjson.Number
)

var (
	meta     = member{"_meta", strictjson.Object, false}
	anything = []member{}
	page     = []member{{"cursor", strictjson.String, false}}
	resource = []member{{"uri", strictjson.String, required}}
	task     = []member{{"taskId", strictjson.String, required}}
)

// known are the methods that clients call, with the parameters that have one type.
// Every one may have _meta.
var known = map[string][]member{
	"initialize": {
		{"protocolVersion", strictjson.String, required},
		{"capabilities", strictjson.Object, required},
		{"clientInfo", strictjson.Object, required},
	},
	"ping":                     anything,
	"server/discover":          anything,
	"subscriptions/listen":     anything,
	"tools/list":               page,
	"prompts/list":             page,
	"resources/list":           page,
	"resources/templates/list": page,
	"tasks/list":               page,
	toolsCall:                  {{"name", strictjson.String, required}, {"arguments", strictjson.Object, false}, {"task", strictjson.Object, false}},
	"prompts/get":              {{"name", strictjson.String, required}, {"arguments", strictjson.Object, false}},
	"resources/read":           resource,
	"resources/subscribe":      resource,
	"resources/unsubscribe":    resource,
	"completion/complete":      {{"ref", strictjson.Object, required}, {"argument", strictjson.Object, required}, {"context", strictjson.Object, false}},
	"logging/setLevel":         {{"level", strictjson.String, required}},
	"tasks/get":                task,
	"tasks/result":             task,
	"tasks/cancel":             task,

	"notifications/initialized":        anything,
	"notifications/roots/list_changed": anything,
	"notifications/tasks/status":       {{"taskId", strictjson.String, required}, {"status", strictjson.String, required}},
	"notifications/cancelled":          {{"requestId", token, false}, {"reason", strictjson.String, false}},
	"notifications/progress": {
		{"progressToken", token, required},
		{"progress", strictjson.Number, required},
		{"total", strictjson.Number, false},
		{"message", strictjson.String, false},
	},
}

// checkMCP checks a call of a method that MCP knows. Others are taken as they are.
func (in *reader) checkMCP(f *frame) error {
	if f.id == strictjson.Null {
		return bad("the id of an MCP request is a text or a number")
	}
	members, ok := known[f.method]
	if !ok {
		for m := range known {
			if strings.EqualFold(m, f.method) {
				return bad("a method that MCP knows is written in its own case")
			}
		}
		return nil
	}
	if f.params == strictjson.Array {
		return bad("the params of an MCP method are an object")
	}
	if err := meta.check(f.parameters); err != nil {
		return err
	}
	for _, m := range members {
		if err := m.check(f.parameters); err != nil {
			return err
		}
	}
	if f.method == toolsCall {
		return in.tool(f.parameters)
	}
	return nil
}

// check looks for the member. One that may be left out may also be null.
func (m member) check(all []parameter) error {
	for _, p := range all {
		switch {
		case p.name != m.name && strings.EqualFold(p.name, m.name):
			return bad("a parameter that MCP knows is written in its own case")
		case p.name != m.name:
		case p.kind&m.kinds == 0 && (m.required || p.kind != strictjson.Null):
			return bad("parameter " + m.name + " has the type that MCP gives it")
		default:
			return nil
		}
	}
	if m.required {
		return bad("parameter " + m.name + " is there, as MCP requires it")
	}
	return nil
}

func (in *reader) tool(all []parameter) error {
	for _, p := range all {
		switch {
		case p.name != "name":
		case p.text == "":
			return bad("the name of a tool is not empty")
		}
	}
	return nil
}

// mirrored compares the head's copy of a call with the call: servers, and what
// stands in front of them, act on either.
func (in *reader) mirrored(h *content.Head) error {
	for _, name := range []string{"Mcp-Method", "Mcp-Name"} {
		n := 0
		for _, f := range h.Fields {
			if !strings.EqualFold(http1.AsVariable(f.Name), name) {
				continue
			}
			if n++; n > 1 || len(in.calls) != 1 || !in.says(name, f.Value) {
				return bad(name + " says what the one call of the body says")
			}
		}
	}
	return nil
}

func (in *reader) says(field, value string) bool {
	c := &in.calls[0]
	if field == "Mcp-Method" {
		return value == c.Method
	}
	of := "name"
	switch {
	case strings.HasPrefix(c.Method, "resources/"):
		of = "uri"
	case strings.HasPrefix(c.Method, "tasks/"):
		of = "taskId"
	}
	text, ok := c.Params[of]
	return ok && plainName(value) == text
}

// plainName decodes what Mcp-Name writes where a name is not plain ASCII.
func plainName(value string) string {
	inner, ok := strings.CutPrefix(value, "=?base64?")
	if !ok {
		return value
	}
	inner, ok = strings.CutSuffix(inner, "?=")
	decoded, err := base64.StdEncoding.Strict().DecodeString(inner)
	if !ok || err != nil {
		return value
	}
	return string(decoded)
}
