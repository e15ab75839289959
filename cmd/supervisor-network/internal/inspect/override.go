package inspect

import "strings"

// Overrides are the methods that fields ask the origin to take a request for. Many
// frameworks, and the APIs of Google and Microsoft, do as they say; which origin does, a
// proxy cannot know.
func Overrides(h Head) (methods []string) {
	for i := range h.Fields {
		if f := &h.Fields[i]; f.Value != "" && overrides(f.Name) && f.Value != h.Method {
			methods = append(methods, f.Value)
		}
	}
	return methods
}

// overrides reports whether a field names a method, also to those who read underscores as
// hyphens.
func overrides(name string) bool {
	if len(name) < len("X-HTTP-Method") || name[0]|0x20 != 'x' {
		return false
	}
	name = strings.ReplaceAll(name, "_", "-")
	return strings.EqualFold(name, "X-HTTP-Method-Override") || strings.EqualFold(name, "X-HTTP-Method") || strings.EqualFold(name, "X-Method-Override")
}
