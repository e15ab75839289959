// Package decide says whether a program may open a connection to a host and port.
//
// It answers the threat of a connection that no rule allows, whatever the question
// looks like: undefined, failed, late and unknown are all denials. The procedure is
// the Rego module in rego/, evaluated by Open Policy Agent over the compiled policy;
// Go contributes the glob matching, because the reference's three kinds of glob are
// not OPA's, and an index that finds the few endpoints a host could match. It does
// not answer a policy that is wider than its author meant.
//
// Callers may rely on this: only this package makes a valid Permit; a Snapshot is
// immutable and answers the same question the same way for ever; a nil Snapshot
// denies everything. Modules compile against an allow-list of builtins without
// network, files, time or randomness.
//
// Remembered decisions are keyed by everything the procedure sees and live in the
// Snapshot, so that no decision outlives its policy.
package decide
