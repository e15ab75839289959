package graphql

import (
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/strictjson"
)

// maxParameters is how many pairs a query may have; a target is short anyway.
const maxParameters = 100

// fromQuery reads the one operation of a request by GET.
func fromQuery(query string) ([]decide.Operation, error) {
	var q request
	seen := make([]string, 0, 8)
	err := parameters(query, func(key, value string) error {
		name, known := meaning(key)
		switch {
		case !known:
			return nil
		case name != key:
			return bad("a parameter that means something is written in its own way")
		case slices.Contains(seen, key):
			return bad("a parameter of a GraphQL request stands once")
		}
		seen = append(seen, key)
		return q.parameter(key, value)
	})
	if err != nil {
		return nil, err
	}
	op, err := q.operation()
	if err != nil {
		return nil, err
	}
	return []decide.Operation{op}, nil
}

func (q *request) parameter(key, value string) error {
	switch key {
	case "query":
		q.query = value
	case "operationName":
		q.name = value
	case "variables":
	case "extensions":
		r, err := strictjson.New([]byte(value))
		if err == nil {
			err = q.extensions(r)
		}
		if err == nil {
			err = r.End()
		}
		return readable(err)
	case "id", "documentId", "queryId":
		return q.named(&q.id, value)
	default:
		return bad("the id of an operation is called id, documentId or queryId")
	}
	return nil
}

// withoutParameters refuses a request by POST that also says something by its
// query: servers differ in which of the two they take.
func withoutParameters(query string) error {
	return parameters(query, func(key, _ string) error {
		if _, known := meaning(key); known {
			return bad("a GraphQL request by POST has no GraphQL parameters in its query")
		}
		return nil
	})
}

// parameters yields the pairs of a query. What servers take apart in more than one
// way is refused.
func parameters(query string, yield func(key, value string) error) error {
	if strings.IndexByte(query, ';') >= 0 {
		return bad("a query contains no semicolon; it is written as %3B")
	}
	if query == "" {
		return nil
	}
	n := 0
	for pair := range strings.SplitSeq(query, "&") {
		if n++; n > maxParameters {
			return bad("a query has at most 100 parameters")
		}
		key, value, _ := strings.Cut(pair, "=")
		key, err1 := url.QueryUnescape(key)
		value, err2 := url.QueryUnescape(value)
		if err1 != nil || err2 != nil || !utf8.ValidString(key) || !utf8.ValidString(value) || strings.ContainsAny(key+value, "\x00\ufeff") {
			return bad("a query is percent-encoded UTF-8, without NUL or byte order mark")
		}
		if err := yield(key, value); err != nil {
			return err
		}
	}
	return nil
}

// meaning is the name that some server may read a parameter as: in another case, as
// an element of an array, or with something around it, a bracket for instance, that it cuts off.
func meaning(key string) (name string, known bool) {
	outside := func(c rune) bool { return c < 0x80 && !nameByte(byte(c)) }
	inner := strings.TrimLeftFunc(key, outside)
	if end := strings.IndexAny(inner, "[]"); end >= 0 {
		inner = inner[:end]
	}
	inner = strings.TrimRightFunc(inner, outside)
	for _, n := range names {
		if strings.EqualFold(inner, n) {
			return n, true
		}
	}
	return "", false
}
