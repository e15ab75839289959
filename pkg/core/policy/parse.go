package policy

import "github.com/splitpod/splitpod/pkg/core/strictyaml"

// Parse reads a policy file. The name is for messages only. It returns a valid
// Document, or an error that is of type strictyaml.Problems and holds everything that is
// wrong, in the order of the file. The warnings are returned in both cases.
func Parse(file string, data []byte) (*Document, []strictyaml.Problem, error) {
	return parse(file, data, false)
}

// ParseComposed reads a policy that a control plane composed: what only the system may say
// is read, names that are reserved for it and marks of its endpoints and binaries. A rule
// with a binary that the workload proposed counts as proposed in all its endpoints. An
// endpoint that the control plane has credentials for has to be inspected, or to say
// allow_uninspected_credentials.
func ParseComposed(file string, data []byte) (*Document, []strictyaml.Problem, error) {
	return parse(file, data, true)
}

func parse(file string, data []byte, composed bool) (*Document, []strictyaml.Problem, error) {
	var doc *Document
	warnings, err := strictyaml.Read(file, data, func(top strictyaml.Value) { doc = document(top, composed) })
	if err != nil {
		return nil, warnings, err
	}
	return doc, warnings, nil
}

// document reads the whole file; what it returns is of use only if nothing was reported.
func document(file strictyaml.Value, composed bool) *Document {
	top, ok := file.Object("version", "filesystem_policy", "landlock", "process",
		"network_policies", "network_middlewares")
	if !ok {
		return nil
	}
	doc := &Document{Version: top.Version()}
	readStatic(top, doc)
	n := network{hosts: hosts{}, composed: composed}
	doc.Network = n.rules(top)
	doc.Middlewares = n.middlewares(top)
	n.ambiguities(top)
	return doc
}
