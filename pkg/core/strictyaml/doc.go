// Package strictyaml reads files of YAML that people write and security depends on: the
// policy, and the network daemon's credentials file.
//
// It answers the threat of a file that says one thing to its author and another to the
// enforcer: a misspelt key, a key given twice, a `no` or `0443` that YAML reads as something
// else, an alias that hides what a part contains, a character that cannot be seen. Each of
// these is a Problem with file, line, column and field, and all of a file are reported at
// once. What a file means, and whether it is wise, is the caller's.
//
// Invariant: work and memory are bounded by the limits below, the same bytes give the same
// answer, and every line and column that is reported is one of the file.
//
// YAML is read as YAML 1.2 by go.yaml.in/yaml/v3, without anchors, aliases, merge keys, tags
// and further documents; text that YAML 1.1 reads differently has to be quoted.
package strictyaml
