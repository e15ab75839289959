// Package glob decides whether a host, path or name fits a pattern of a policy,
// in the three dialects that existing policies are written in.
//
// It answers the threat of a pattern that means something else here than where
// the policy was written, and of a pattern or an input that makes matching slow:
// every matcher is a finite automaton whose size is bounded at compile time, so a
// match costs at most (states × input bytes) steps and never backtracks. It does
// not answer the threat of a pattern that is wider than its author thinks: `/**`
// matches every path, as written.
//
// Callers may rely on this: a pattern that compiles has one meaning, a pattern
// that has none is an error that names the byte where it goes wrong, matching
// never allocates memory, and all compiled values are immutable and safe for
// concurrent use. The zero Pattern, Host, Scope and Selector match nothing.
//
// The dialects:
//
//   - Pattern (hosts, binaries, rule paths, query values, tool and operation
//     names) behaves as the Rust crate globset 0.4 with literal separators, used
//     by a Rego glob builtin that maps the delimiter onto the separator. Matching
//     is by byte: `?` is one byte.
//   - Scope (an endpoint's path) behaves as the Rust crate glob without literal
//     separators: every wildcard crosses `/`, braces are ordinary.
//   - Selector (hosts of middlewares and credential bindings) goes label by label.
package glob
