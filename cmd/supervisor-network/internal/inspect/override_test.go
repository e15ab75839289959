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
		{http1.Fields{{Name: "X-HTTP-Method-Override", Value: "POST"}}, nil}, // what it is
		{http1.Fields{{Name: "X-HTTP-Method-Override", Value: ""}}, nil},
		{http1.Fields{{Name: "X-HTTP-Methods", Value: "DELETE"}, {Name: "Y-HTTP-Method", Value: "DELETE"}, {Name: "X", Value: "DELETE"}}, nil},
	} {
		if got := Overrides(Head{Method: "POST", Fields: tt.fields}); !slices.Equal(got, tt.want) {
			t.Errorf("%+v: %q, want %q", tt.fields, got, tt.want)
		}
	}
}
