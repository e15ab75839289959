package policy

import (
	"maps"
	"slices"
	"strings"

	"github.com/splitpod/splitpod/pkg/core/strictyaml"
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
	v, ok := er.Fields["protocol"]
	return ok && er.e.Protocol == ProtocolL4 && !v.IsEmptyText()
}

// checkUninspected refuses what would have to look into requests.
func (er endpointReader) checkUninspected(where string) {
	for _, key := range []string{"path", "access", "rules", "deny_rules"} {
		if v, ok := er.Fields[key]; ok && !v.IsEmptyText() {
			v.Fail("%s has no effect %s and everything would be allowed; add a protocol such as rest, or remove it", key, where)
		}
	}
	if v, ok := er.Fields["enforcement"]; ok && !v.IsEmptyText() {
		v.Warn("enforcement has no effect %s", where)
	}
}

// tcpKeys are the keys that may stand beside protocol: tcp.
var tcpKeys = []string{"host", "port", "ports", "protocol", "tls", "allowed_ips"}

func (er endpointReader) checkTCP() {
	for _, key := range endpointKeys {
		if v, ok := er.Fields[key]; ok && !slices.Contains(tcpKeys, key) {
			v.Fail("%s has no effect with protocol: tcp; remove it", key)
		}
	}
	switch host := er.e.Host; {
	case host == "" && !er.Has("host"):
		er.FailKey("host", "protocol: tcp needs a host name; write one")
	case host == "":
		er.Fields["host"].Fail("protocol: tcp needs a host name; write one")
	default:
		if _, err := parsePrefix(host); err == nil {
			er.Fields["host"].Fail("protocol: tcp needs a host name, not an address; leave protocol out")
		}
	}
}

func (er endpointReader) checkInspected() {
	e := er.e
	if e.TLS == "skip" {
		er.Fields["tls"].Fail("tls: skip leaves nothing to inspect for protocol: %s; remove one of the two", e.Protocol)
	}
	if !er.Has("enforcement") || er.Fields["enforcement"].IsEmptyText() {
		er.WarnKey("enforcement", "the default is audit: what the rules deny is recorded and still sent; write enforcement: enforce to block it")
	}
	if e.Protocol == ProtocolSQL && e.Enforce {
		er.Fields["enforcement"].Fail("sql is not inspected and cannot be enforced; write enforcement: audit")
	}
	if e.Protocol == ProtocolSQL && !e.Enforce {
		er.Fields["protocol"].Warn("sql is not inspected: every statement passes, and the rules only document what is meant")
	}
	er.checkAccess()
	er.checkAllowSet()
}

func (er endpointReader) checkAccess() {
	v, ok := er.Fields["access"]
	switch {
	case !ok || v.IsEmptyText():
	case er.Has("rules"):
		v.Fail("access and rules exclude each other; keep rules")
	case er.e.Protocol == ProtocolJSONRPC || er.e.Protocol == ProtocolMCP:
		v.Fail("access is not for protocol: %s; write rules", er.e.Protocol)
	}
}

// checkAllowSet checks that something says what is allowed.
func (er endpointReader) checkAllowSet() {
	e := er.e
	access := er.Has("access") && !er.Fields["access"].IsEmptyText()
	all := e.MCP != nil && e.MCP.AllowAllKnownMCPMethods
	switch {
	case er.Has("rules") || access || all:
	case e.Protocol == ProtocolJSONRPC:
		er.FailKey("rules", "protocol: json-rpc needs rules; list the allowed methods")
	case e.Protocol == ProtocolMCP:
		er.FailKey("rules", "protocol: mcp needs rules or mcp.allow_all_known_mcp_methods: true")
	default:
		er.FailKey("rules", "protocol: %s needs rules or access; without them nothing is allowed", e.Protocol)
	}
	if v, ok := er.Fields["deny_rules"]; ok && !er.Has("rules") && !access && !all {
		v.Fail("deny_rules only take away from rules or access; add one of these")
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
		v, ok := er.Fields[key]
		if ok && !slices.Contains(only, er.e.Protocol) && v.Literal() != "false" {
			names := make([]string, len(only))
			for i, p := range only {
				names[i] = string(p)
			}
			v.Fail("%s is read with protocol: %s only; remove it", key, strings.Join(names, " or "))
		}
	}
	switch {
	case er.e.PersistedQueries == "deny" && len(er.e.GraphQLPersistedQueries) > 0:
		er.Fields["graphql_persisted_queries"].Warn("registered queries are not consulted; write persisted_queries: allow_registered")
	case er.e.PersistedQueries == "allow_registered" && len(er.e.GraphQLPersistedQueries) == 0:
		er.Fields["persisted_queries"].Warn("no query is registered, so none is allowed; list them in graphql_persisted_queries")
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
			er.Fields["graphql_persisted_queries"].Warn("%s has no fields, and rules look at them; list its root fields", strictyaml.Quoted(id))
		}
	}
}
