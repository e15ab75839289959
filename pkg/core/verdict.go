package core

// Verdict is the outcome of a decision. The zero value denies.
type Verdict uint8

// The verdicts.
const (
	Deny Verdict = iota
	Allow
)

// String is "deny" or "allow"; any other value denies.
func (v Verdict) String() string {
	if v == Allow {
		return "allow"
	}
	return "deny"
}

// Reason is the stable, machine-readable cause of a verdict. It appears in
// records, in metrics and in the error field of answers to the workload, and is
// never renamed. A new reason may be added at any time.
type Reason string

// The reasons. Those that the workload sees as an error body keep the spelling
// policies and agents already rely on.
const (
	ReasonAllowed             Reason = "allowed"
	ReasonPolicyDenied        Reason = "policy_denied"        // no rule allows it
	ReasonPolicyChanged       Reason = "policy_changed"       // decided on a policy that is no longer current
	ReasonIdentityUnavailable Reason = "identity_unavailable" // who asks could not be determined
	ReasonSSRFDenied          Reason = "ssrf_denied"          // the destination's addresses are refused
	ReasonNotReady            Reason = "not_ready"            // no policy or no contract yet
	ReasonBadRequest          Reason = "bad_request"          // malformed request
	ReasonInvalidTarget       Reason = "invalid_request_target"
	ReasonAuthorityMismatch   Reason = "request_authority_mismatch" // the request names another host than its tunnel
	ReasonBodyTooLarge        Reason = "body_too_large"             // more than may be inspected
	ReasonInvalidGraphQL      Reason = "invalid_graphql_request"
	ReasonInvalidJSONRPC      Reason = "invalid_jsonrpc_request"
	ReasonUpstreamTLS         Reason = "upstream_tls_failed"
	ReasonHeaderTooLarge      Reason = "header_too_large"
	ReasonRequestTimeout      Reason = "request_timeout" // the request head did not arrive in time
	ReasonUnsupportedScheme   Reason = "unsupported_proxy_scheme"
	ReasonUnsupportedProtocol Reason = "unsupported_l7_protocol"
	ReasonUpstreamUnreachable Reason = "upstream_unreachable" // no validated address answered
	ReasonUpstreamTimeout     Reason = "upstream_timeout"
	ReasonUpstreamInvalid     Reason = "upstream_invalid_response"
	ReasonTooManyConnections  Reason = "too_many_connections"
	ReasonClientClosed        Reason = "client_closed" // the workload went away before a decision
	ReasonIdle                Reason = "idle"          // a tunnel in which nothing moved
	ReasonShutdown            Reason = "shutdown"      // the daemon stopped
	ReasonBypass              Reason = "bypass"        // a direct connection the fence refused
	ReasonInternal            Reason = "internal_error"
	// About credentials.
	ReasonCredentialUnavailable  Reason = "credential_unavailable"       // a placeholder has no usable value here
	ReasonCredentialInjection    Reason = "credential_injection_failed"  // the same, on the forward path
	ReasonCredentialMismatch     Reason = "credential_endpoint_mismatch" // bound to other endpoints
	ReasonUninspectedCredentials Reason = "uninspected_credentials"      // a credentialed endpoint that is not inspected
	ReasonSigningFailed          Reason = "credential_signing_failed"
	ReasonTokenGrantFailed       Reason = "token_grant_failed"
)

// ParseReason takes a reason from outside: anything but up to 64 lower-case
// letters, digits and underscores becomes the empty reason.
func ParseReason(s string) Reason {
	if len(s) > 64 {
		return ""
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && c != '_' && (c < '0' || c > '9') {
			return ""
		}
	}
	return Reason(s)
}
