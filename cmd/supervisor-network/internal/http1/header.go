package http1

import "net/http"

// FieldsOf lists the fields of a header of net/http as HTTP/1.1 has them.
func FieldsOf(h http.Header) Fields {
	out := make(Fields, 0, len(h))
	for name, values := range h {
		for _, v := range values {
			out = append(out, Field{Name: name, Value: v})
		}
	}
	return out
}
