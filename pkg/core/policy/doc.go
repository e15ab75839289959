// Package policy reads the policy file: version 1 of the schema, as typed values
// that are valid as a whole.
//
// It answers the threat of a policy that says one thing to its author and another
// to the enforcer, as far as that is the policy's and not YAML's (strictyaml): a
// pattern that matches nothing, two endpoints that contradict each other, a key
// that the protocol does not read. Each of these is a problem with file, line,
// column and field, and a file with one problem has no effect at all. It does not
// answer the threat of a policy that is wider than it should be; what looks wide is
// a warning.
//
// Callers may rely on this: Parse returns a Document or an error, never both; a
// Document has its defaults filled in and satisfies every rule; the same bytes
// give the same answer; work and memory are bounded by the limits below. Nothing
// here reads files, resolves names or looks up users.
package policy
