package policy

import (
	"slices"
	"strings"

	"github.com/splitpod/splitpod/pkg/core/strictyaml"
)

// check checks a matcher against the protocol of its endpoint. Its texts are in
// order when it is called.
func (mr matcherReader) check() {
	switch mr.e.Protocol {
	case ProtocolREST:
		mr.checkREST()
	case ProtocolWebSocket:
		mr.checkWebSocket()
	case ProtocolGraphQL:
		mr.only("operation_type", "operation_name", "fields")
		mr.checkGraphQL()
	case ProtocolSQL:
		mr.only("command")
		mr.checkSQL()
	case ProtocolJSONRPC:
		mr.only("method", "params")
		mr.checkJSONRPC()
	case ProtocolMCP:
		mr.only("method", "tool", "params")
		mr.checkMCP()
	}
}

// only refuses keys that the protocol does not read.
func (mr matcherReader) only(keys ...string) {
	for _, key := range matcherKeys {
		if v, ok := mr.Fields[key]; ok && !slices.Contains(keys, key) {
			v.Fail("%s is not read with protocol: %s; write %s", key, mr.e.Protocol, strings.Join(keys, ", "))
		}
	}
}

// everything reports a deny rule that leaves nothing to allow.
func (mr matcherReader) everything() {
	if mr.deny {
		mr.Fail("the rule denies everything; remove the endpoint, or deny less")
	}
}

var restMethods = []string{
	"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT",
	"PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK", "REPORT", "SEARCH", "QUERY",
}

var webSocketMethods = []string{"GET", "WEBSOCKET_TEXT", "*"}

func (mr matcherReader) checkREST() {
	mr.only("method", "path", "query")
	if !mr.methodAndPath() || mr.m.Method == "*" {
		return
	}
	v := mr.Fields["method"]
	switch {
	case !token(mr.m.Method):
		v.Fail("%s is not a method and would never match; write one method, such as GET, or *", strictyaml.Quoted(mr.m.Method))
	case !slices.Contains(restMethods, mr.m.Method):
		v.Warn("%s is not a usual method", strictyaml.Quoted(mr.m.Method))
	}
}

func token(s string) bool {
	for i := range len(s) {
		if c := s[i]; !('A' <= c && c <= 'Z' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}

// methodAndPath checks the two keys that a rule about HTTP requests needs, and
// writes the method in upper case.
func (mr matcherReader) methodAndPath() bool {
	ok := true
	for _, key := range []string{"method", "path"} {
		if !mr.Has(key) {
			mr.FailKey(key, "a rule without %s never matches; write %s", key, map[string]string{
				"method": "method: \"*\" for any", "path": "path: \"**\" for any",
			}[key])
			ok = false
		}
	}
	mr.m.Method = strings.ToUpper(mr.m.Method)
	if v, has := mr.Fields["path"]; has && mr.m.Path != "**" {
		before := v.Errors()
		checkPathGlob(v, mr.m.Path)
		if v.Errors() == before {
			checkCanonical(v, mr.m.Path, mr.e.AllowEncodedSlash)
		}
		if v.Errors() == before {
			mr.checkInScope()
		}
	}
	if ok && mr.m.Method == "*" && (mr.m.Path == "**" || mr.m.Path == "/**") && len(mr.m.Query) == 0 {
		mr.everything()
	}
	return ok
}

// graphQLKeys make a rule one about GraphQL operations.
var graphQLKeys = []string{"operation_type", "operation_name", "fields"}

// aboutGraphQL reports whether a matcher is about GraphQL operations.
func (m *Matcher) aboutGraphQL() bool {
	return m.OperationType != "" || m.OperationName != "" || len(m.Fields) > 0
}

func (mr matcherReader) checkWebSocket() {
	if mr.m.aboutGraphQL() {
		mr.only(graphQLKeys...)
		mr.checkGraphQL()
		return
	}
	mr.only("method", "path", "query")
	if mr.methodAndPath() && !slices.Contains(webSocketMethods, mr.m.Method) {
		mr.Fields["method"].Fail("%s would never match on a WebSocket; write GET, WEBSOCKET_TEXT or *", strictyaml.Quoted(mr.m.Method))
	}
}

func (mr matcherReader) checkGraphQL() {
	if mr.m.OperationType == "" {
		mr.FailKey("operation_type", "the operation type is missing; write query, mutation, subscription or *")
		return
	}
	if mr.deny && mr.m.OperationName != "" && len(mr.m.Fields) == 0 && !unlimited(mr.m.OperationName) {
		mr.Fields["operation_name"].Warn("clients choose the names of their operations and get past this; deny fields")
	}
	if mr.m.OperationType == "*" && unlimited(mr.m.OperationName) && (len(mr.m.Fields) == 0 || slices.ContainsFunc(mr.m.Fields, unlimited)) {
		mr.everything()
	}
}

// unlimited reports whether a name pattern leaves nothing out.
func unlimited(pattern string) bool { return pattern == "" || pattern == "*" || pattern == "**" }

func (mr matcherReader) checkSQL() {
	switch {
	case !mr.Has("command"):
		mr.FailKey("command", "the command is missing; write one, such as SELECT, or *")
	case mr.m.Command == "*":
		mr.everything()
	}
}

func (mr matcherReader) checkJSONRPC() {
	switch {
	case !mr.Has("method"):
		mr.FailKey("method", "the method is missing; write it out, or * for any")
	case mr.m.Method == "*" && len(mr.m.Params) == 0:
		mr.everything()
	case mr.m.Method != "*" && strings.ContainsAny(mr.m.Method, wildcards):
		mr.Fields["method"].Fail("%s has a wildcard; write one method out, or * for any", strictyaml.Quoted(mr.m.Method))
	}
}

// wildcards are the characters that make a name a pattern.
const wildcards = `*?[]{}\`

// hasGraphQLRules reports whether the frames of a WebSocket are judged as GraphQL.
func (e *Endpoint) hasGraphQLRules() bool {
	return slices.ContainsFunc(e.Allow, func(m Matcher) bool { return m.aboutGraphQL() }) ||
		slices.ContainsFunc(e.Deny, func(m Matcher) bool { return m.aboutGraphQL() })
}
