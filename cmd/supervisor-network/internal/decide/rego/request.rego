# The decision about one request on a permitted connection. Data is one policy, input
# is the request; a request that is not derived to pass is refused.
#
#   data.policy.endpoints   every endpoint of the policy, by number; null where requests
#                           are not judged. Their rules are those of the file; those
#                           that deny are there in lower case, too.
#   input.endpoints         numbers of the endpoints that granted the connection
#   input.method            in upper case
#   input.path              canonical
#   input.decoded           the path with its encoded slashes and backslashes as slashes,
#                           without what an encoded semicolon begins, both, and each with
#                           slashes merged; [] without any
#   input.folded            the path and each of these in lower case
#   input.readings          the path as origins could read it, for rules that deny
#   input.query             the parameters, decoded, in each reading of the query: a semicolon
#                           may separate, and may not; [] if it cannot be read. What is
#                           spelled alike some origin takes for one parameter
#   input.query_readable    every reader finds the same parameters
#   input.upgrade, .message, .session, .unreadable
#   input.operations        of GraphQL, in order
#   input.calls             of JSON-RPC, in order
package splitpod.request

# Endpoints whose path scope takes the request. The most specific one says how it is
# treated; rules of all count.
taking contains id if {
	some id in input.endpoints
	splitpod.scope_matches(data.policy.endpoints[id].path, input.path)
}

weight(id) := count(path) - (count(split(path, "*")) - 1) if path := data.policy.endpoints[id].path

heaviest := max({weight(id) | some id in taking})

selected := min({id | some id in taking; weight(id) == heaviest})

here := data.policy.endpoints[selected]

default kind := "http"

kind := "graphql" if here.protocol == "graphql"

kind := "graphql" if {
	input.message
	graphql_messages
}

kind := "calls" if here.protocol in {"json-rpc", "mcp"}

graphql_messages if {
	here.protocol == "websocket"
	some m in array.concat(here.allow, here.deny)
	m.operation_type
}

# -- what cannot be judged is refused, whatever the enforcement

unjudgeable contains [0, "ambiguous"] if {
	some id in input.endpoints
	path := data.policy.endpoints[id].path
	some decoded in input.decoded
	splitpod.scope_matches(path, input.path) != splitpod.scope_matches(path, decoded)
}

unjudgeable contains [0, "ambiguous"] if {
	some id in input.endpoints
	endpoint := data.policy.endpoints[id]
	not splitpod.scope_matches(endpoint.path, input.path)
	some folded in input.folded
	splitpod.scope_matches(endpoint.folded, folded)
}

unjudgeable contains [1, "reserved"] if {
	input.method == "WEBSOCKET_TEXT"
	not input.message
}

unjudgeable contains [1, "reserved"] if {
	input.method != "WEBSOCKET_TEXT"
	input.message
}

unjudgeable contains [2, "unreadable"] if input.unreadable

unjudgeable contains [3, "query"] if {
	not input.query_readable
	some id in taking
	some m in array.concat(data.policy.endpoints[id].allow, data.policy.endpoints[id].deny)
	m.query
}

unjudgeable contains [4, "method"] if {
	kind == "graphql"
	not input.message
	not input.method in {"GET", "POST"}
}

unjudgeable contains [5, "empty"] if {
	kind == "graphql"
	count(input.operations) == 0
}

unjudgeable contains [6, "bad operation"] if {
	kind == "graphql"
	some op in input.operations
	not op.persisted
	not op.type in {"query", "mutation", "subscription"}
}

unjudgeable contains [4, "method"] if {
	kind == "calls"
	not input.session
	input.method != "POST"
}

unjudgeable contains [4, "method"] if {
	input.session
	kind == "calls"
	not session
}

session if {
	here.protocol == "mcp"
	count(input.calls) == 0
	input.method in {"GET", "DELETE"}
}

unjudgeable contains [5, "empty"] if {
	kind == "calls"
	not input.session
	count(input.calls) == 0
}

unjudgeable contains [6, i, "response"] if {
	here.protocol == "json-rpc"
	some i, call in input.calls
	call.response
}

unjudgeable contains [6, i, "tool"] if {
	here.protocol == "mcp"
	some i, call in input.calls
	not call.response
	call.method == "tools/call"
	not good_tool(call.tool)
}

good_tool(name) if {
	name != ""
	not here.strict_tools
}

good_tool(name) if {
	name != ""
	count(name) <= 128
	trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-") == ""
}

unjudgeable contains [7, "no upgrade"] if {
	here.protocol == "websocket"
	not input.message
	not handshake
}

handshake if {
	input.upgrade
	input.method == "GET"
}

# -- a refusal is [0: enforced or 1: not, part of the request, endpoint, why]

# A rule that denies is enforced if its own endpoint, or the one that takes the request,
# enforces its rules.
softness(id) := 0 if {
	some enforcing in [here, data.policy.endpoints[id]]
	enforcing.enforce
} else := 1

# Rules that deny HTTP requests count for requests of every protocol.
http_denial contains [softness(id), -1, id, "denied"] if {
	some id in taking
	some m in http_rules(id, "deny")
	method_taken(m)
	some path in input.readings
	path_taken(m, path)
	query_denied(m)
}

refusal contains denial if some denial in http_denial

refusal contains [softness(selected), 0, selected, "unpermitted"] if {
	kind == "http"
	count(http_denial) == 0
	not allowed_as_http
}

allowed_as_http if {
	some id in taking
	says_what_passes(id)
	some m in http_rules(id, "allow")
	method_taken(m)
	path_taken(m, input.path)
	query_allowed(m)
}

# What a message may be, only rules of its own protocol say.
says_what_passes(_) if not input.message

says_what_passes(id) if data.policy.endpoints[id].protocol == here.protocol

# -- rules about HTTP requests

http_rules(id, side) := [m |
	data.policy.endpoints[id].protocol in {"rest", "websocket"}
	some m in array.concat(data.policy.endpoints[id][side], presets(id, side))
	not m.operation_type
]

presets(id, "allow") := [{"method": method, "path": "**"} |
	some method in words[data.policy.endpoints[id].protocol][data.policy.endpoints[id].access]
]

presets(_, "deny") := []

words := {
	"rest": {
		"read-only": ["GET", "HEAD", "OPTIONS"],
		"read-write": ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH"],
		"full": ["*"],
	},
	"websocket": {
		"read-only": ["GET"],
		"read-write": ["GET", "WEBSOCKET_TEXT"],
		"full": ["*"],
	},
	"graphql": {
		"read-only": ["query"],
		"read-write": ["query", "mutation"],
		"full": ["*"],
	},
}

method_taken(m) if m.method in {"*", input.method}

# HEAD asks for what GET would get: a rule about one is about the other.
method_taken(m) if {
	m.method == "GET"
	input.method == "HEAD"
}

path_taken(m, _) if m.path == "**"

path_taken(m, path) if {
	m.path != "**"
	splitpod.path_matches(m.path, path)
}

# Each named parameter has to be there, and each value of what is spelled like it to match,
# in every reading,
query_allowed(m) if {
	every named in object.get(m, "query", []) {
		every reading in input.query {
			some sent in reading
			sent.name == named.name
			every value in [p.value | some p in reading; named.spelled in p.spelled] {
				some pattern in named.patterns
				splitpod.name_matches(pattern, value)
			}
		}
	}
}

# and one value of each, in any of them, is enough to deny.
query_denied(m) if {
	every named in object.get(m, "query", []) {
		some reading in input.query
		some sent in reading
		named.spelled in sent.spelled
		some pattern in named.patterns
		splitpod.name_denied(pattern, sent.value)
	}
}

# -- GraphQL operations

# What was sent as a hash or id is judged as it is registered where the request is taken.
judged(op) := op if not op.persisted

judged(op) := here.registered[op.persisted] if op.persisted

refusal contains [softness(id), i, id, "denied"] if {
	kind == "graphql"
	some i, op in input.operations
	some id in taking
	operation_denied(id, judged(op))
}

operation_denied(id, op) if {
	some m in data.policy.endpoints[id].deny
	operation_named(m, op, "deny")
	fields_denied(m, op)
}

refusal contains [softness(selected), i, selected, "unpermitted"] if {
	kind == "graphql"
	some i, op in input.operations
	read := judged(op)
	every id in taking { not operation_denied(id, read) }
	not operation_allowed(read)
}

operation_allowed(op) if {
	some id in taking
	data.policy.endpoints[id].protocol == here.protocol
	some m in array.concat(data.policy.endpoints[id].allow, preset_operations(id))
	operation_named(m, op, "allow")
	fields_allowed(m, op)
}

preset_operations(id) := [{"operation_type": type} |
	data.policy.endpoints[id].protocol == "graphql"
	some type in words.graphql[data.policy.endpoints[id].access]
] if data.policy.endpoints[id].protocol != "websocket"

# A word that allows messages allows the operations that they are.
preset_operations(id) := [{"operation_type": "*"} |
	data.policy.endpoints[id].access in {"read-write", "full"}
	about_operations(id)
] if data.policy.endpoints[id].protocol == "websocket"

about_operations(id) if {
	some m in array.concat(data.policy.endpoints[id].allow, data.policy.endpoints[id].deny)
	m.operation_type
}

operation_named(m, op, side) if {
	m.operation_type in {"*", op.type}
	name_fits(side, object.get(m, "operation_name", ""), op.name)
}

name_fits(_, "", _)

name_fits("allow", pattern, name) if {
	pattern != ""
	splitpod.name_matches(pattern, name)
}

name_fits("deny", pattern, name) if {
	pattern != ""
	splitpod.name_denied(pattern, name)
}

# Every root field has to be one of the rule's,
fields_allowed(m, _) if not m.fields

fields_allowed(m, op) if {
	count(op.fields) > 0
	every field in op.fields {
		some pattern in m.fields
		splitpod.name_matches(pattern, field)
	}
}

# and one of them, or not to know them, is enough to deny.
fields_denied(m, _) if not m.fields

fields_denied(_, op) if count(op.fields) == 0

fields_denied(m, op) if {
	some field in op.fields
	some pattern in m.fields
	splitpod.name_denied(pattern, field)
}

# A hash or id that means nothing hides the operation from every rule.
refusal contains [hidden, i, selected, "unregistered"] if {
	kind == "graphql"
	some i, op in input.operations
	op.persisted
	not here.registered[op.persisted]
	hidden := min({softness(selected)} | {0 |
		some id in taking
		data.policy.endpoints[id].enforce
		some m in data.policy.endpoints[id].deny
		m.operation_type
	})
}

# -- JSON-RPC calls

# Who may begin a session may end it. The stream of the server's messages needs no rule.
called := [{"method": "initialize", "tool": "", "params": {}, "names": [], "unnamed": false, "response": false}] if {
	input.session
	input.method == "DELETE"
} else := input.calls

refusal contains [softness(id), i, id, "denied"] if {
	kind == "calls"
	some i, call in called
	not call.response
	some id in taking
	call_denied(id, call)
}

refusal contains [softness(selected), i, selected, "unpermitted"] if {
	kind == "calls"
	some i, call in called
	not call.response
	every id in taking { not call_denied(id, call) }
	not call_allowed(call)
}

call_denied(id, call) if {
	some m in call_rules(id, "deny")
	method_named("deny", m, call)
	every key, pattern in named_params(m) { param_denied(pattern, key, call) }
}

call_allowed(call) if {
	some id in taking
	data.policy.endpoints[id].protocol == here.protocol
	some m in call_rules(id, "allow")
	method_named("allow", m, call)
	every key, pattern in named_params(m) { splitpod.name_matches(pattern, param(call, key)) }
}

# Where everything known is allowed, rules that name tools leave other tools out.
call_allowed(call) if {
	some id in taking
	data.policy.endpoints[id].protocol == here.protocol
	data.policy.endpoints[id].all_methods
	not tool_left_out(id, call)
}

tool_left_out(id, call) if {
	call.method == "tools/call"
	some m in call_rules(id, "allow")
	named_params(m).name
}

call_rules(id, side) := data.policy.endpoints[id][side] if data.policy.endpoints[id].protocol in {"json-rpc", "mcp"}

method_named(_, m, _) if m.method == "*"

method_named(side, m, call) if {
	pattern := object.get(m, "method", "tools/call")
	pattern != "*"
	name_fits(side, pattern, call.method)
}

# A tool is the parameter called name.
named_params(m) := {"name": m.tool} if m.tool

named_params(m) := object.get(m, "params", {}) if not m.tool

param(call, "name") := call.tool if call.tool != ""

param(call, key) := call.params[key] if not tool_is(call, key)

tool_is(call, "name") if call.tool != ""

param_denied(pattern, key, call) if splitpod.name_denied(pattern, param(call, key))

# A parameter that is no text, is spelt in another case, or has no name, could be
# anything.
param_denied(_, key, call) if {
	not param(call, key)
	hidden_param(call, key)
}

hidden_param(call, _) if call.unnamed

hidden_param(call, key) if lower(upper(key)) in call.names

# -- the verdict

verdict := {"why": "unmatched", "hard": true, "soft": false, "item": -1, "by": -1} if {
	count(taking) == 0
} else := {"why": reason[count(reason) - 1], "hard": true, "soft": false, "item": -1, "by": selected} if {
	reason := min(unjudgeable)
} else := {"why": graver[3], "hard": false, "soft": graver[0] == 1, "item": graver[1], "by": graver[2]} if {
	graver := min(refusal)
} else := {"why": "", "hard": false, "soft": false, "item": 0, "by": 0}
