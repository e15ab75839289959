// Package decide says whether a program may open a connection to a host and port, and
// whether a request on it may be made.
//
// It answers the threat of a connection or request that no rule allows, whatever the
// question looks like: undefined, failed, late, unreadable and unknown are all denials.
// The procedures are the Rego modules in rego/, evaluated by Open Policy Agent over the
// policy; Go contributes the glob matching, because the reference's three kinds of glob
// are not OPA's, and an index that finds the few endpoints a host could match. It does
// not answer a policy that is wider than its author meant, nor an origin that takes one
// request for another: by a method in its query or body, by a path in other letter case.
//
// connection.rego decides at run time, once for each question that differs.
// request.rego is too slow for every request; what decides there is its compiled form,
// judge.go. That is safe because the module is given the rules as the file has them and
// shares nothing with the compiled form but the globs, and because random policies and
// requests, a static corpus and every table of the tests are put to both and have to
// get the same verdict (TestCompiledRulesAgreeWithTheModule, FuzzRequest). SpeakAbout, which
// `policy explain` calls, asks both and fails if they differ.
//
// Where a rule that denies could be dodged it reaches further than the pattern says: its
// wildcards do not stop at dots in names and values, GET is HEAD as well, a path counts
// in every reading that origins have of its slashes and semicolons, a method that
// overrides the request's own counts beside it, a GraphQL operation whose fields are not
// known and a parameter that is no text match.
//
// Callers may rely on this: only this package makes a valid Permit; a Snapshot is
// immutable and answers the same question the same way for ever; a nil Snapshot
// denies everything. Modules compile against an allow-list of builtins without
// network, files, time or randomness.
//
// Remembered decisions are keyed by everything the procedure sees and live in the
// Snapshot, so that no decision outlives its policy.
package decide
