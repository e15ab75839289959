package observe

// Every metric of this daemon. No label carries a host, a path or a name that the
// workload chose.
var (
	BuildInfo = Metric{Gauge, "splitpod_build_info", "The build, as labels; always 1.", []string{"component", "version", "revision", "goversion"}}
	Ready     = Metric{Gauge, "splitpod_ready", "1 when every readiness check holds.", nil}
	Checks    = Metric{Gauge, "splitpod_ready_check", "1 when this readiness check holds.", []string{"check"}}

	Phase        = Metric{Gauge, "splitpod_workload_phase", "The workload: 0 preparing, 1 prepared, 2 running, 3 exited.", nil}
	PeerAttached = Metric{Gauge, "splitpod_peer_attached", "1 while a network daemon is on the contract.", nil}

	Bypass        = Metric{Counter, "splitpod_bypass_refused_total", "Packets around the proxy that the fence refused, by protocol; unknown: counted without having been logged.", []string{"protocol"}}
	FenceVerified = Metric{Gauge, "splitpod_fence_verified_timestamp_seconds", "When the fence was last read back as it was installed; 0: never.", nil}
	FenceDamaged  = Metric{Gauge, "splitpod_fence_damaged", "1 when the fence is not what was installed.", nil}

	PeerEvents    = Metric{Counter, "splitpod_peer_events_total", "Events that the network daemon reported, by kind; occurrences are counted.", []string{"kind"}}
	Findings      = Metric{Counter, "splitpod_findings_total", "Findings of this daemon: something protective is missing, weaker or was tampered with.", []string{"reason"}}
	Records       = Metric{Counter, "splitpod_records_total", "Records made.", nil}
	Failed        = Metric{Counter, "splitpod_records_failed_total", "Records that a log or file could not be given.", nil}
	EventsWaiting = Metric{Gauge, "splitpod_events_waiting", "Events that the network daemon has not acknowledged.", nil}
	EventsMerged  = Metric{Counter, "splitpod_events_undetailed_total", "Occurrences whose detail was dropped because too many events were waiting; they are counted.", nil}
)
