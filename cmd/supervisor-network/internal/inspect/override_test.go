package inspect

import (
	"slices"
	"testing"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
)

func TestFieldsThatOverrideTheMethodAreFound(t *testing.T) {
	for _, tt := range []struct {
		fields http1.Fields
		want   []string
	}{
		{http1.Fields{{Name: "X-HTTP-Method-Override", Value: "DELETE"}}, []string{"DELETE"}},
		{http1.Fields{{Name: "x-http-method", Value: "merge"}}, []string{"merge"}},
		{http1.Fields{{Name: "X-Method-Override", Value: "PUT"}, {Name: "X-Http-Method", Value: "GET"}}, []string{"PUT", "GET"}},
		{http1.Fields{{Name: "X_HTTP-Method_Override", Value: "DELETE"}}, []string{"DELETE"}},
		{http1.Fields{{Name: "X-HTTP.Method.Override", Value: "DELETE"}}, []string{"DELETE"}},                                    // to PHP
		{http1.Fields{{Name: "X!HTTP~Method", Value: "PUT"}, {Name: "X-HTTP-Method", Value: "PATCH"}}, []string{"PUT", "PATCH"}}, // to lighttpd
		{http1.Fields{{Name: "X-HTTP-Method-Override", Value: "POST"}}, nil},                                                     // what it is
		{http1.Fields{{Name: "X-HTTP-Method-Override", Value: ""}}, nil},
		{http1.Fields{{Name: "X-HTTP-Method-Override", Value: "DELETE, POST,,put"}}, []string{"DELETE", "put"}},
		{http1.Fields{{Name: "X-HTTP-Methods", Value: "DELETE"}, {Name: "Y-HTTP-Method", Value: "DELETE"}, {Name: "X", Value: "DELETE"}}, nil},
	} {
		if got := Overrides(Head{Method: "POST", Fields: tt.fields}); !slices.Equal(got, tt.want) {
			t.Errorf("%+v: %q, want %q", tt.fields, got, tt.want)
		}
	}
}

func TestParametersThatOverrideTheMethodAreFound(t *testing.T) {
	for query, want := range map[string][]string{
		"_method=DELETE":                         {"DELETE"},
		"a=b&_method=delete&c":                   {"delete"},
		"_HttpMethod=PATCH":                      {"PATCH"},
		"x-http-method-override=PUT":             {"PUT"}, // as ASP.NET MVC has it
		"_method=PUT&_method=DELETE":             {"PUT", "DELETE"},
		"%5fm%65thod=D%45LETE":                   {"DELETE"},
		"a=b;_method=DELETE":                     {"DELETE"},
		"a=%zz&_method=DELETE":                   {"DELETE"},
		"+_method=DELETE&%20.method=PATCH":       {"DELETE", "PATCH"}, // as PHP has it
		"_method=+DELETE,%20PUT":                 {"DELETE", "PUT"},
		"_method%00x=DELETE":                     {"DELETE"},
		"%5fmethod%00%zz=DELETE":                 {"DELETE"},
		"[_method]=DELETE&%5B_method%5Dx=PUT":    {"DELETE", "PUT"}, // as Express has it
		"_method[]=DELETE&_method[0]=PUT":        {"DELETE", "PUT"}, // where the first is taken
		"_method=POST&_method=&_method":          nil,               // what it is, or nothing
		"method=DELETE&x_method=DELETE&=_method": nil,
		"a=_method=DELETE&a=%26_method=DELETE":   nil,
		"":                                       nil,
	} {
		if got := Overrides(Head{Method: "POST", Query: query}); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
}
