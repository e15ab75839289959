package core

// TracePrefix is the first half of every trace id of ours: "splitpod" in ASCII.
const TracePrefix = "73706c6974706f64"

// Trace is the W3C trace id of a request, 32 lower-case hex digits: the same in both
// daemons, because it is made of the request's own id and of nothing that the
// workload sent. The span id is the request id itself. It is empty for an id that is
// none.
func (id RequestID) Trace() string {
	if !id.Valid() {
		return ""
	}
	return TracePrefix + string(id)
}

// ParseTraceParent takes the value of a traceparent header (W3C Trace Context level
// 2, section 3.2) that the workload sent, and returns it when it has that form, else
// the empty string. Nothing may be decided by it.
func ParseTraceParent(s string) string {
	if len(s) != 55 || s[0:3] != "00-" || s[35] != '-' || s[52] != '-' {
		return ""
	}
	trace, span, flags := s[3:35], s[36:52], s[53:55]
	if !isLowerHex(trace, 32) || !isLowerHex(span, 16) || !isLowerHex(flags, 2) || allZero(trace) || allZero(span) {
		return ""
	}
	return s
}

func allZero(s string) bool {
	for i := range len(s) {
		if s[i] != '0' {
			return false
		}
	}
	return true
}
