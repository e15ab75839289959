package strictyaml

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// AnyMap reads a map whatever is in it, as encoding/json would have it: maps, lists, texts,
// truth values, null, int64 and float64. size grows by the bytes of its keys and single
// values. Messages never repeat them, they could be private.
func (v Value) AnyMap(size *int) (map[string]any, bool) {
	es, ok := v.Entries()
	out := make(map[string]any, len(es))
	for _, e := range es {
		*size += len(e.Name)
		out[e.Name] = e.Value.any(size)
	}
	return out, ok
}

// any reads a value of any type.
func (v Value) any(size *int) any {
	switch v.node.Kind {
	case yaml.MappingNode:
		m, _ := v.AnyMap(size)
		return m
	case yaml.SequenceNode:
		vs, _ := v.List()
		out := make([]any, len(vs))
		for i, e := range vs {
			out[i] = e.any(size)
		}
		return out
	case yaml.ScalarNode:
		*size += len(v.node.Value)
		return v.anyScalar()
	}
	return nil
}

func (v Value) anyScalar() any {
	s := v.node.Value
	switch {
	case !plain(v.node) || v.node.Tag == "!!str" && !slices.Contains(legacy, strings.ToLower(s)):
		if strings.ContainsFunc(s, func(c rune) bool { return c == 0 }) {
			v.Fail("the text has an invisible character in it; remove it")
		}
		return s
	case s == "true" || s == "false":
		return s == "true"
	case s == "null":
		return nil
	case v.node.Tag == "!!int":
		if n, err := strconv.ParseInt(s, 10, 64); err == nil && strconv.FormatInt(n, 10) == s {
			return n
		}
	case v.node.Tag == "!!float":
		if f, err := strconv.ParseFloat(s, 64); err == nil && !math.IsInf(f, 0) && !math.IsNaN(f) {
			return f
		}
	}
	v.Fail("YAML readers differ about this value; put it in quotes, or write true, false, null or a plain number")
	return nil
}
