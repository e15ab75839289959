// Package inject puts credentials into requests that are already decided, and takes
// them out of the answers; its folders hold one part each.
//
// It answers the threats of a workload that has a secret to lose, and of one that
// makes this daemon carry a secret where it does not belong: the workload only ever
// holds placeholders, and a placeholder becomes a value for the endpoints its
// credential is bound to, in the few places of a request that are known, behind a
// decide.Permit. It does not answer an endpoint that misuses what it is rightly
// sent.
//
// The way of one request through the parts, with one credentials.Snapshot, which package
// seal goes:
//
//  1. rewrite.Redact: what decide, records and bindings see of path and query
//  2. decide: the Permit, the endpoint, the ruling
//  3. sigv4.Strip, if the endpoint signs: the client's key is a placeholder too
//  4. rewrite.Job: Fields, Path, Query, then Body where the endpoint rewrites bodies;
//     elsewhere placeholder.NewReader or NewWriter around the body
//  5. exchange.Apply, if Snapshot.Grant has a grant for it
//  6. sigv4.Sign, last, since it covers all of it
//  7. Snapshot.Recheck of the newest Snapshot, directly before the first byte
//  8. hygiene.Filter over the response, made of Snapshot.Echoes
//
// Invariant: whatever cannot be rewritten exactly as intended is refused as a whole
// with an *Error, and no error, record or list contains a value.
package inject

import (
	"fmt"

	"github.com/splitpod/splitpod/pkg/core"
)

// Error is a request that is refused here. Detail may be shown to the workload: it
// names keys, which the workload has sent, and rules, never values.
type Error struct {
	Status int // HTTP status to answer with
	Reason core.Reason
	Detail string
}

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("%s: %s", e.Reason, e.Detail) }

// Forwarded is the same refusal in the words of the forward proxy's own answers,
// which existing clients know by another name.
func (e *Error) Forwarded() *Error {
	if e.Reason != core.ReasonCredentialUnavailable {
		return e
	}
	return &Error{Status: e.Status, Reason: core.ReasonCredentialInjection, Detail: e.Detail}
}

// Unavailable refuses a request because a placeholder in it has no usable value.
func Unavailable(format string, args ...any) *Error {
	return &Error{Status: 500, Reason: core.ReasonCredentialUnavailable, Detail: fmt.Sprintf(format, args...)}
}

// Mismatched is the message of Mismatch, word for word that of OpenShell.
const Mismatched = "Credential is not authorized for this request endpoint"

// Mismatch refuses a request that would take a credential to an endpoint it is not
// bound to.
func Mismatch(key string) *Error {
	return &Error{Status: 403, Reason: core.ReasonCredentialMismatch, Detail: Mismatched + ": " + key}
}

// Misplaced refuses a request with a placeholder where none is replaced.
func Misplaced(where string) *Error {
	return Unavailable("a placeholder stands in %s, where none is replaced", where)
}

// Guarded refuses a request whose body, which is not rewritten, contains a
// placeholder.
func Guarded() *Error {
	return &Error{Status: 403, Reason: core.ReasonCredentialUnavailable, Detail: "a placeholder stands in the body, where none is replaced"}
}

// Use says which credential went into a request. It never holds the value.
type Use struct {
	Key      string
	Revision uint64 // of its value
}
