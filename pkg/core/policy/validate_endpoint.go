package policy

import (
	"maps"
	"slices"
	"strings"
)

// checkProtocol checks that the keys of an endpoint fit its protocol and each
// other.
func (er endpointReader) checkProtocol() {
	switch {
	case er.unknownProtocol():
		return
	case er.e.Protocol == ProtocolL4:
		er.checkUninspected("without a protocol")
	case er.e.Protocol == ProtocolTCP:
		er.checkTCP()
	default:
		er.checkInspected()
	}
	er.checkOptionKeys()
}

// unknownProtocol reports whether the protocol was given and not understood.
func (er endpointReader) unknownProtocol() bool {
	v, ok := er.fields["protocol"]
	return ok && er.e.Protocol == ProtocolL4 && !v.emptyText()
}

// checkUninspected refuses what would have to look into requests.
func (er endpointReader) checkUninspected(where string) {
	for _, key := range []string{"path", "access", "rules", "deny_rules"} {
		if v, ok := er.fields[key]; ok && !v.emptyText() {
			v.fail("%s has no effect %s and everything would be allowed; add a protocol such as rest, or remove it", key, where)
		}
	}
	if v, ok := er.fields["enforcement"]; ok && !v.emptyText() {
		v.warn("enforcement has no effect %s", where)
	}
}

// tcpKeys are the keys that may stand beside protocol: tcp.
var tcpKeys = []string{"host", "port", "ports", "protocol", "tls", "allowed_ips"}

func (er endpointReader) checkTCP() {
	for _, key := range endpointKeys {
		if v, ok := er.fields[key]; ok && !slices.Contains(tcpKeys, key) {
			v.fail("%s has no effect with protocol: tcp; remove it", key)
		}
	}
	switch host := er.e.Host; {
	case host == "" && !er.has("host"):
		er.missing("host", "protocol: tcp needs a host name; write one")
	case host == "":
		er.fields["host"].fail("protocol: tcp needs a host name; write one")
	default:
		if _, err := parsePrefix(host); err == nil {
			er.fields["host"].fail("protocol: tcp needs a host name, not an address; leave protocol out")
		}
	}
}

func (er endpointReader) checkInspected() {
	e := er.e
	if e.TLS == "skip" {
		er.fields["tls"].fail("tls: skip leaves nothing to inspect for protocol: %s; remove one of the two", e.Protocol)
	}
	if !er.has("enforcement") || er.fields["enforcement"].emptyText() {
		er.r.add(Problem{
			At: e.At, Field: join(er.path, "enforcement"), Warning: true,
			Message: "the default is audit: what the rules deny is recorded and still sent; write enforcement: enforce to block it",
		})
	}
	if e.Protocol == ProtocolSQL && e.Enforce {
		er.fields["enforcement"].fail("sql is not inspected and cannot be enforced; write enforcement: audit")
	}
	if e.Protocol == ProtocolSQL && !e.Enforce {
		er.fields["protocol"].warn("sql is not inspected: every statement passes, and the rules only document what is meant")
	}
	er.checkAccess()
	er.checkAllowSet()
}

func (er endpointReader) checkAccess() {
	v, ok := er.fields["access"]
	switch {
	case !ok || v.emptyText():
	case er.has("rules"):
		v.fail("access and rules exclude each other; keep rules")
	case er.e.Protocol == ProtocolJSONRPC || er.e.Protocol == ProtocolMCP:
		v.fail("access is not for protocol: %s; write rules", er.e.Protocol)
	}
}

// checkAllowSet checks that something says what is allowed.
func (er endpointReader) checkAllowSet() {
	e := er.e
	access := er.has("access") && !er.fields["access"].emptyText()
	all := e.MCP != nil && e.MCP.AllowAllKnownMCPMethods
	switch {
	case er.has("rules") || access || all:
	case e.Protocol == ProtocolJSONRPC:
		er.missing("rules", "protocol: json-rpc needs rules; list the allowed methods")
	case e.Protocol == ProtocolMCP:
		er.missing("rules", "protocol: mcp needs rules or mcp.allow_all_known_mcp_methods: true")
	default:
		er.missing("rules", "protocol: %s needs rules or access; without them nothing is allowed", e.Protocol)
	}
	if v, ok := er.fields["deny_rules"]; ok && !er.has("rules") && !access && !all {
		v.fail("deny_rules only take away from rules or access; add one of these")
	}
}

// optionKeys are keys that only some protocols read.
var optionKeys = map[string][]Protocol{
	"allow_encoded_slash":             {ProtocolREST},
	"request_body_credential_rewrite": {ProtocolREST},
	"websocket_credential_rewrite":    {ProtocolREST, ProtocolWebSocket, ProtocolGraphQL},
	"persisted_queries":               {ProtocolGraphQL, ProtocolWebSocket},
	"graphql_persisted_queries":       {ProtocolGraphQL, ProtocolWebSocket},
	"graphql_max_body_bytes":          {ProtocolGraphQL, ProtocolWebSocket},
}

func (er endpointReader) checkOptionKeys() {
	if er.e.Protocol == ProtocolTCP {
		return // reported for all keys
	}
	for key, only := range optionKeys {
		v, ok := er.fields[key]
		if ok && !slices.Contains(only, er.e.Protocol) && v.node.Value != "false" {
			names := make([]string, len(only))
			for i, p := range only {
				names[i] = string(p)
			}
			v.fail("%s is read with protocol: %s only; remove it", key, strings.Join(names, " or "))
		}
	}
	switch {
	case er.e.PersistedQueries == "deny" && len(er.e.GraphQLPersistedQueries) > 0:
		er.fields["graphql_persisted_queries"].warn("registered queries are not consulted; write persisted_queries: allow_registered")
	case er.e.PersistedQueries == "allow_registered" && len(er.e.GraphQLPersistedQueries) == 0:
		er.fields["persisted_queries"].warn("no query is registered, so none is allowed; list them in graphql_persisted_queries")
	}
	er.checkRegistered()
}

// checkRegistered warns of registered queries that rules about fields know nothing of:
// none of these allows them, and each that denies does.
func (er endpointReader) checkRegistered() {
	about := func(m Matcher) bool { return len(m.Fields) > 0 }
	if !slices.ContainsFunc(er.e.Allow, about) && !slices.ContainsFunc(er.e.Deny, about) {
		return
	}
	for _, id := range slices.Sorted(maps.Keys(er.e.GraphQLPersistedQueries)) {
		if len(er.e.GraphQLPersistedQueries[id].Fields) == 0 {
			er.fields["graphql_persisted_queries"].warn("%s has no fields, and rules look at them; list its root fields", quoted(id))
		}
	}
}
