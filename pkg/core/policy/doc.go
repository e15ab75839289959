// Package policy reads the policy file: version 1 of the schema, as typed values
// that are valid as a whole.
//
// It answers the threat of a policy that says one thing to its author and another
// to the enforcer: a misspelt key, a key given twice, a `no` or `0443` that YAML
// reads as something else, an alias that hides what a rule contains, a pattern
// that matches nothing, two endpoints that contradict each other. Each of these
// is a problem with file, line, column and field, and a file with one problem has
// no effect at all. It does not answer the threat of a policy that is wider than
// it should be; what looks wide is a warning.
//
// Callers may rely on this: Parse returns a Document or an error, never both; a
// Document has its defaults filled in and satisfies every rule; the same bytes
// give the same answer; work and memory are bounded by the limits below. Nothing
// here reads files, resolves names or looks up users.
//
// YAML is read as YAML 1.2 by go.yaml.in/yaml/v3, without anchors, aliases, merge
// keys, tags and further documents; text that YAML 1.1 reads differently has to
// be quoted.
package policy
