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

//go:generate go run github.com/splitpod/splitpod/docs/reasondoc -source verdict.go -list reasons_gen.go -page ../../docs/reason-codes.md

// The reasons of verdicts. Those that the workload sees as an error body keep the
// spelling policies and agents already rely on.
const (
	ReasonAllowed             Reason = "allowed"                    // a rule allows it, and it went well
	ReasonPolicyDenied        Reason = "policy_denied"              // no rule allows it
	ReasonPolicyChanged       Reason = "policy_changed"             // decided on a policy that is no longer current
	ReasonIdentityUnavailable Reason = "identity_unavailable"       // who asks could not be determined
	ReasonSSRFDenied          Reason = "ssrf_denied"                // the destination's addresses are refused
	ReasonNotReady            Reason = "not_ready"                  // no policy or no contract yet
	ReasonBadRequest          Reason = "bad_request"                // malformed request
	ReasonInvalidTarget       Reason = "invalid_request_target"     // the request's target cannot be read in one way
	ReasonAuthorityMismatch   Reason = "request_authority_mismatch" // the request names another host than its tunnel
	ReasonBodyTooLarge        Reason = "body_too_large"             // more than may be inspected
	ReasonInvalidGraphQL      Reason = "invalid_graphql_request"    // a body that is no GraphQL request, or several
	ReasonInvalidJSONRPC      Reason = "invalid_jsonrpc_request"    // a body that is no JSON-RPC request, or is one in two ways
	ReasonUpstreamTLS         Reason = "upstream_tls_failed"        // the origin's TLS or its certificate is not acceptable
	ReasonHeaderTooLarge      Reason = "header_too_large"           // a request head above its limit
	ReasonRequestTimeout      Reason = "request_timeout"            // the request head did not arrive in time
	ReasonUnsupportedScheme   Reason = "unsupported_proxy_scheme"   // an absolute-form request for something else than http
	ReasonUnsupportedProtocol Reason = "unsupported_l7_protocol"    // the request needs a protocol that cannot be inspected here
	ReasonUpstreamUnreachable Reason = "upstream_unreachable"       // no validated address answered
	ReasonUpstreamTimeout     Reason = "upstream_timeout"           // no validated address answered in time
	ReasonUpstreamInvalid     Reason = "upstream_invalid_response"  // the origin's response cannot be read in one way
	ReasonTooManyConnections  Reason = "too_many_connections"       // above the limit of connections at one time
	ReasonTooManyBodies       Reason = "too_many_bodies"            // above the limit of bodies and messages that are read as a whole, or of unread answers
	ReasonClientClosed        Reason = "client_closed"              // the workload went away, or one end cut the connection
	ReasonIdle                Reason = "idle"                       // nothing moved in a tunnel, or a client left its answer unread
	ReasonShutdown            Reason = "shutdown"                   // the daemon stopped
	ReasonBypass              Reason = "bypass"                     // a direct connection the fence refused
	ReasonInternal            Reason = "internal_error"             // a fault of the daemon; it denied
	// About model calls.
	ReasonInferenceUnconfigured Reason = "inference_unconfigured" // there is no inference route
	ReasonInferenceNoRoute      Reason = "inference_no_route"     // no inference route takes the call's protocol
	ReasonInferenceOperation    Reason = "inference_operation"    // a request to inference.local that is no model call
	// About credentials.
	ReasonCredentialUnavailable  Reason = "credential_unavailable"       // a placeholder has no usable value here
	ReasonCredentialInjection    Reason = "credential_injection_failed"  // the same, on the forward path
	ReasonCredentialMismatch     Reason = "credential_endpoint_mismatch" // bound to other endpoints
	ReasonUninspectedCredentials Reason = "uninspected_credentials"      // a credentialed endpoint that is not inspected
	ReasonUninspectedResponse    Reason = "uninspected_response"         // the answer to a request with a credential is in a coding that cannot be searched
	ReasonSigningFailed          Reason = "credential_signing_failed"    // a request could not be signed
	ReasonTokenGrantFailed       Reason = "token_grant_failed"           // no token could be had
)

// The reasons of events that are no verdict.
const (
	EventStarted             Reason = "started"                   // a daemon is up
	EventStopped             Reason = "stopped"                   // a daemon ended in order
	EventProcessAttached     Reason = "process_attached"          // a process daemon is on the contract
	EventProcessDetached     Reason = "process_detached"          // it is gone; its connections and identities with it
	EventPolicyLoaded        Reason = "policy_loaded"             // a policy is in force
	EventPolicyInvalid       Reason = "policy_invalid"            // a changed policy file is refused
	EventPolicyValidated     Reason = "policy_validated"          // a policy is in force, and something in it is probably not meant
	EventCAEnabled           Reason = "ca_enabled"                // the CA that TLS is intercepted with
	EventCredentialsLoaded   Reason = "credentials_loaded"        // keys of the credentials file are in use
	EventCredentialsInvalid  Reason = "credentials_invalid"       // a changed credentials file is refused, and no key is in use
	EventInferenceLoaded     Reason = "inference_loaded"          // inference routes are in force
	EventInferenceInvalid    Reason = "inference_invalid"         // a changed file of inference routes is refused
	EventTokenGranted        Reason = "token_granted"             // a token endpoint gave this daemon a token
	EventStaticPolicyChanged Reason = "static_policy_changed"     // sections that take effect at the workload's start only have changed
	EventConfined            Reason = "confined"                  // what was really applied to the workload
	EventLaunched            Reason = "launched"                  // the workload runs
	EventExited              Reason = "exited"                    // the workload ended
	EventPathNotGranted      Reason = "path_not_granted"          // a path of the policy is not there, so that nothing was granted
	EventNoPIDLimit          Reason = "no_pid_limit"              // nothing bounds the number of processes
	EventGuideNotLinked      Reason = "guide_not_linked"          // the image has something where the guide for agents goes
	EventWeakerIsolation     Reason = "weaker_isolation"          // the kernel lacks something that isolation uses
	EventLandlockUnavailable Reason = "landlock_unavailable"      // the kernel has no Landlock, so that only the user limits files
	EventLandlockPartial     Reason = "landlock_partial"          // the kernel's Landlock is too old to limit all it should
	EventSyscallRefused      Reason = "syscall_refused"           // a program made a system call that none in the sandbox may make
	EventFenceDamaged        Reason = "fence_damaged"             // the rules of the fence are not those that were installed
	EventHandshakeRefused    Reason = "handshake_refused"         // the other daemon's build does not fit
	EventPeerRefused         Reason = "peer_refused"              // somebody else spoke on the contract's sockets
	EventApprovalLeftOut     Reason = "approved_rule_left_out"    // an approved rule does not fit the policy any more
	EventRuleProposed        Reason = "rule_proposed"             // the workload proposed a rule, which waits for an operator
	EventProposalApproved    Reason = "proposal_approved"         // an operator put a proposed rule in force
	EventProposalRejected    Reason = "proposal_rejected"         // an operator decided against a proposal
	EventProposalRevoked     Reason = "proposal_revoked"          // an operator took an approved rule out of force
	EventApprovalRefused     Reason = "proposal_approval_refused" // an approval named another change than the one it would have made
	EventAdminDecided        Reason = "admin_decided"             // a decision was asked for on the admin socket or page, and carried out
	EventAdminFailed         Reason = "admin_failed"              // the same, and it was not carried out
	EventAdminTokenMissing   Reason = "admin_token_missing"       // the admin address was asked without the token it wants
	EventAdminTokenWrong     Reason = "admin_token_wrong"         // the admin address was shown another token
	EventAdminTokenUnread    Reason = "admin_token_unreadable"    // the file of the admin token cannot be read or holds none, so that nobody is admitted
	EventAdminRefused        Reason = "admin_refused"             // who asked is not one who may ask at all, whatever they show
	EventLearning            Reason = "learning"                  // every public destination is allowed for a time
	EventLearningOver        Reason = "learning_over"             // only what the policy allows is allowed again
	EventRecordsUnsure       Reason = "records_unsure"            // an earlier instance was killed while it recorded; the count says how many records may be missing
	EventSSHListening        Reason = "ssh_listening"             // SSH is served
	EventSSHOpened           Reason = "ssh_opened"                // somebody logged in
	EventSSHClosed           Reason = "ssh_closed"                // and left
	EventSSHFailed           Reason = "ssh_failed"                // a connection came to nothing, or SSH ended
	EventSSHRefused          Reason = "ssh_refused"               // a login, destination or channel that is not allowed
	EventSSHUnsupported      Reason = "ssh_unsupported"           // a request of a kind that is not served
	EventGatewayReached      Reason = "gateway_reached"           // the gateway answers, for the first time or again
	EventGatewayLost         Reason = "gateway_lost"              // the gateway does not answer, or not with a policy
	EventGatewayOpened       Reason = "gateway_session_opened"    // the gateway has a session with this sandbox
	EventGatewayClosed       Reason = "gateway_session_closed"    // that session has ended
	EventGatewayFailed       Reason = "gateway_session_failed"    // no session could be opened
	EventRelayOpened         Reason = "gateway_relay_opened"      // somebody is connected to the sandbox by the gateway
	EventRelayClosed         Reason = "gateway_relay_closed"      // and has left
	EventRelayFailed         Reason = "gateway_relay_failed"      // such a connection came to nothing, or broke off
	EventRelayRefused        Reason = "gateway_relay_refused"     // the gateway asked for what no relay leads to, or for too many
	EventRecordsDropped      Reason = "records_dropped"           // the log was not read fast enough; the count says how many
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
