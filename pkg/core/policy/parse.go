package policy

import "github.com/splitpod/splitpod/pkg/core/strictyaml"

// Parse reads a policy file. The name is for messages only. It returns a valid
// Document, or an error that is of type strictyaml.Problems and holds everything that is
// wrong, in the order of the file. The warnings are returned in both cases.
func Parse(file string, data []byte) (*Document, []strictyaml.Problem, error) {
	var doc *Document
	warnings, err := strictyaml.Read(file, data, func(top strictyaml.Value) { doc = document(top) })
	if err != nil {
		return nil, warnings, err
	}
	return doc, warnings, nil
}

// document reads the whole file; what it returns is of use only if nothing was reported.
func document(file strictyaml.Value) *Document {
	top, ok := file.Object("version", "filesystem_policy", "landlock", "process",
		"network_policies", "network_middlewares")
	if !ok {
		return nil
	}
	doc := &Document{Version: top.Version()}
	readStatic(top, doc)
	n := network{hosts: hosts{}}
	doc.Network = n.rules(top)
	doc.Middlewares = n.middlewares(top)
	n.ambiguities(top)
	return doc
}
