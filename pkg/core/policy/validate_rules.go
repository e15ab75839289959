package policy

import (
	"slices"
	"strings"

	"github.com/splitpod/splitpod/pkg/core/policy/glob"
	"github.com/splitpod/splitpod/pkg/core/strictyaml"
)

// ruleSet is where the matchers of an endpoint are, in the order of Allow and Deny.
type ruleSet struct {
	allow, deny []strictyaml.Value
}

// checkRuleSet checks the rules of an endpoint against each other.
func (er endpointReader) checkRuleSet() {
	switch er.e.Protocol {
	case ProtocolWebSocket:
		er.checkWebSocketSet()
	case ProtocolMCP:
		er.checkMCPSet()
	}
}

func (er endpointReader) checkWebSocketSet() {
	er.checkHandshake()
	if !er.e.hasGraphQLRules() {
		return
	}
	if len(er.e.Allow) > 0 && !slices.ContainsFunc(er.e.Allow, func(m Matcher) bool { return m.aboutGraphQL() }) {
		er.rules.deny[0].Fail("messages are judged as GraphQL operations because of deny_rules, and no rule allows one; add allow: {operation_type: \"*\"}")
	}
	for i, m := range er.e.Allow {
		if m.Method == "WEBSOCKET_TEXT" {
			er.rules.allow[i].Fail("WEBSOCKET_TEXT would allow every operation past the GraphQL rules; remove this rule")
		}
	}
}

// checkHandshake says that no message will ever be sent where no rule allows the
// request that comes first. Another endpoint could.
func (er endpointReader) checkHandshake() {
	opens := func(m Matcher) bool { return m.Method == "GET" || m.Method == "*" }
	if len(er.e.Allow) > 0 && !slices.ContainsFunc(er.e.Allow, opens) {
		er.Fields["rules"].Warn("no rule allows the handshake, which comes first; add allow: {method: GET, path: ...}")
	}
}

const toolCall = "tools/call"

// bareToolCall reports whether a matcher is about every call of a tool.
func (m *Matcher) bareToolCall() bool {
	p, err := glob.Compile(m.Method, '.')
	return err == nil && p.Match(toolCall) && !m.aboutTool()
}

// aboutTool reports whether a matcher names tools.
func (m *Matcher) aboutTool() bool { return m.Tool != "" || m.Params["name"] != "" }

func (er endpointReader) checkMCPSet() {
	specific := false
	for _, m := range er.e.Allow {
		specific = specific || m.aboutTool()
	}
	if !specific {
		return
	}
	for i, m := range er.e.Allow {
		if m.bareToolCall() {
			er.rules.allow[i].Fail("tools/call without a tool allows every tool, and other rules name tools; remove one of the two")
		}
	}
	for i, m := range er.e.Deny {
		if m.bareToolCall() {
			er.rules.deny[i].Fail("tools/call without a tool denies every tool that other rules allow; remove one of the two")
		}
	}
}

func (mr matcherReader) checkMCP() {
	all := mr.e.MCP.AllowAllKnownMCPMethods
	method := mr.m.Method
	if !mr.Has("method") && !(all && mr.m.aboutTool()) {
		mr.FailKey("method", "the method is missing; write it out, such as tools/call")
	}
	if wild := strings.IndexAny(method, wildcards); wild >= 0 && (!strings.HasPrefix(method, "tools/") || wild < len("tools/")) {
		mr.Fields["method"].Fail("%s has a wildcard outside tools/; write the method out", strictyaml.Quoted(method))
	} else if method != "" {
		checkNameGlob(mr.Fields["method"], method)
	}
	mr.checkMCPTool(all)
}

func (mr matcherReader) checkMCPTool(all bool) {
	for name := range mr.m.Params {
		if name != "name" {
			mr.Fields["params"].FailKey(name, "parameter %s is not read with protocol: mcp; write tool, or params with name only", strictyaml.Quoted(name))
		}
	}
	key, tool := "tool", mr.m.Tool
	if tool == "" {
		key, tool = "params", mr.m.Params["name"]
	} else if mr.m.Params["name"] != "" {
		mr.Fields["tool"].Fail("tool and params.name are both set; keep tool")
	}
	if tool == "" {
		return
	}
	v := mr.Fields[key]
	if mr.m.Method != toolCall && !(all && mr.m.Method == "") {
		v.Fail("a tool is named, and the method is not tools/call; write method: tools/call")
	}
	if mr.e.MCP.StrictToolNames && !strings.ContainsAny(tool, wildcards) && !strictTool(tool) {
		v.Fail("%s would never match, strict tool names have up to 128 letters, digits, dots, dashes and underscores; write mcp.strict_tool_names: false or another name", strictyaml.Quoted(tool))
	}
	if !mr.e.MCP.StrictToolNames && strings.ContainsAny(tool, wildcards) {
		v.Fail("%s has a wildcard, which needs mcp.strict_tool_names: true; set that or write the tool out", strictyaml.Quoted(tool))
	}
}

// strictTool reports whether a tool's name has the strict form.
func strictTool(name string) bool {
	for i := range len(name) {
		c := name[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("_.-", c) >= 0) {
			return false
		}
	}
	return len(name) <= 128
}
