package observe

// Every metric of this daemon. No label carries a host, a path or a name that the
// workload chose.
var (
	BuildInfo = Metric{Gauge, "splitpod_build_info", "The build, as labels; always 1.", []string{"component", "version", "revision", "goversion"}}
	Ready     = Metric{Gauge, "splitpod_ready", "1 when every readiness check holds.", nil}
	Checks    = Metric{Gauge, "splitpod_ready_check", "1 when this readiness check holds.", []string{"check"}}

	Decisions = Metric{Counter, "splitpod_decisions_total", "Recorded connections and requests by what they were, verdict and reason code.", []string{"protocol", "verdict", "reason"}}
	Denials   = Metric{Counter, "splitpod_denials_total", "Refused connections and requests by reason code.", []string{"reason"}}
	Ungrouped = Metric{Counter, "splitpod_denials_ungrouped_total", "Refusals, of both daemons, that no proposal can come from because too many different destinations and programs were refused at a time; they are recorded and counted.", nil}
	Allowed   = Metric{Counter, "splitpod_connections_allowed_total", "Connections and requests that a rule allowed.", nil}
	Durations = Metric{Histogram, "splitpod_duration_seconds", "Time from accept to end of allowed connections (tunnel) and requests (the other protocols).", []string{"protocol"}}
	Traffic   = Metric{Counter, "splitpod_traffic_bytes_total", "Bytes of recorded connections and requests: sent by the workload, received by it.", []string{"direction"}}

	Dials      = Metric{Histogram, "splitpod_dial_duration_seconds", "Time to resolve, check and dial a destination.", []string{"result"}}
	Handshakes = Metric{Histogram, "splitpod_tls_handshake_duration_seconds", "Time of TLS handshakes with the workload and with origins.", []string{"side", "result"}}

	Live    = Metric{Gauge, "splitpod_connections_live", "Allowed connections and requests under way now.", nil}
	Open    = Metric{Gauge, "splitpod_connections_open", "Accepted connections now.", nil}
	Tunnels = Metric{Gauge, "splitpod_tunnels", "Connections now whose bytes are relayed without being read.", nil}
	Refused = Metric{Counter, "splitpod_connections_refused_total", "Connections above the limit of connections.", nil}

	BodiesHeld    = Metric{Gauge, "splitpod_bodies_held_bytes", "What is held of request bodies and WebSocket messages that are read as a whole, because rules, credentials or a signature need that.", nil}
	BodiesLimit   = Metric{Gauge, "splitpod_bodies_limit_bytes", "What may be held of them at most.", nil}
	BodiesRefused = Metric{Counter, "splitpod_bodies_refused_total", "Requests and WebSocket messages that found no room below that limit (too_many_bodies).", nil}
	AnswersUnread = Metric{Gauge, "splitpod_answers_unread_bytes", "What origins of HTTP/2 have sent that clients have not read yet.", nil}
	AnswersLimit  = Metric{Gauge, "splitpod_answers_limit_bytes", "What may be unread of it at most, before origins have to wait.", nil}
	AnswersEnded  = Metric{Counter, "splitpod_answers_ended_total", "Answers that were ended because nobody read them while others found no room below that limit (too_many_bodies).", nil}
	Windows       = Metric{Gauge, "splitpod_http2_windows_bytes", "What clients of HTTP/2 may send before anybody reads it, over all connections.", nil}
	Unoffered     = Metric{Counter, "splitpod_http2_unoffered_total", "TLS connections that were offered HTTP/1.1 alone because windows of HTTP/2 take the memory there is for them.", nil}

	Generation = Metric{Gauge, "splitpod_policy_generation", "Number of the policy in force.", nil}
	Loads      = Metric{Counter, "splitpod_policy_loads_total", "Policies that were put in force (loaded), and changed files that were refused (refused).", []string{"result"}}
	RefusedAt  = Metric{Gauge, "splitpod_policy_refused_timestamp_seconds", "When the policy file that is there now was refused; 0: it is in force.", nil}
	Quarantine = Metric{Gauge, "splitpod_policy_quarantine", "1 while everything is denied because the policy file is invalid.", nil}
	Learning   = Metric{Gauge, "splitpod_learning", "1 while public destinations that no rule allows are allowed and recorded (--learn).", nil}
	Proposals  = Metric{Gauge, "splitpod_proposals_pending", "Proposals that wait for an operator.", nil}
	StateFree  = Metric{Gauge, "splitpod_state_free_bytes", "What is free in the state directory; -1 when that cannot be found out.", nil}
	CAExpiry   = Metric{Gauge, "splitpod_ca_expiry_timestamp_seconds", "When the interception CA's certificate ends.", nil}

	CredentialUses = Metric{Counter, "splitpod_credential_uses_total", "Values that went into requests and messages, by the key of the credentials file.", []string{"key"}}

	ModelCalls  = Metric{Counter, "splitpod_inference_calls_total", "Model calls that a provider answered, by the model of their route and the class of the answer's status (2xx).", []string{"model", "status"}}
	ModelTokens = Metric{Counter, "splitpod_inference_tokens_total", "Tokens that providers counted in them, by the model of their route: of requests (in) and answers (out).", []string{"model", "direction"}}

	GatewayAnswered = Metric{Gauge, "splitpod_gateway_answered_timestamp_seconds", "When the gateway last gave the configuration; 0: never. Only with a gateway, like the next two.", nil}
	GatewaySession  = Metric{Gauge, "splitpod_gateway_session", "1 while the gateway has a session with this sandbox.", nil}
	GatewayRelays   = Metric{Gauge, "splitpod_gateway_relays", "Connections into the sandbox by the gateway now.", nil}

	AdminRefused = Metric{Counter, "splitpod_admin_refused_total", "Questions on the admin address and socket that were not answered for who asked them, by reason: admin_token_missing, admin_token_wrong, admin_token_unreadable, admin_refused.", []string{"reason"}}

	PeerAttached  = Metric{Gauge, "splitpod_peer_attached", "1 while a process daemon is on the contract.", nil}
	Phase         = Metric{Gauge, "splitpod_workload_phase", "The workload: 0 preparing, 1 prepared, 2 running, 3 exited.", nil}
	PeerEvents    = Metric{Counter, "splitpod_peer_events_total", "Events that the process daemon reported, by kind; occurrences are counted.", []string{"kind"}}
	PeerFindings  = Metric{Counter, "splitpod_peer_findings_total", "Those of them that are findings, by reason: the process daemon's last one, too, which no scrape of it sees.", []string{"reason"}}
	Findings      = Metric{Counter, "splitpod_findings_total", "Findings of this daemon: something protective is missing, weaker or was tampered with.", []string{"reason"}}
	Records       = Metric{Counter, "splitpod_records_total", "Records made.", nil}
	Dropped       = Metric{Counter, "splitpod_records_dropped_total", "Records that a log or file missed because it was not read fast enough or could not be written.", nil}
	OTLPDropped   = Metric{Counter, "splitpod_otlp_dropped_total", "Log records and spans that the OTLP collector missed because it was slow, away or refused them. Only with an endpoint.", []string{"signal"}}
	EventsWaiting = Metric{Gauge, "splitpod_events_waiting", "Events that the process daemon has not acknowledged.", nil}
	EventsMerged  = Metric{Counter, "splitpod_events_undetailed_total", "Occurrences whose detail was dropped because too many events were waiting; they are counted.", nil}
)
