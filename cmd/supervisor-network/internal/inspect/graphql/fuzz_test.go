package graphql

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/formatter"
	"github.com/vektah/gqlparser/v2/parser"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/content"
)

// sent is a request as encoding/json reads it, which takes any case and the last of
// several.
type sent struct {
	Query, OperationName, ID, DocumentID, QueryID string
	Extensions                                    struct {
		PersistedQuery struct{ Sha256Hash string }
	}
}

func (s *sent) operation() (decide.Operation, error) {
	if s.Query == "" {
		return decide.Operation{
			Name: s.OperationName, Persisted: s.ID + s.DocumentID + s.QueryID + s.Extensions.PersistedQuery.Sha256Hash,
		}, nil
	}
	return operation(s.Query, s.OperationName)
}

// again fails unless the loose reading of one request is the strict one.
func again(t *testing.T, data []byte, got decide.Operation) {
	t.Helper()
	var s sent
	if err := json.Unmarshal(data, &s); err != nil {
		t.Fatal(err)
	}
	want, err := s.operation()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
}

// loosely is a message as encoding/json reads it.
func loosely(t *testing.T, data []byte) (kind string, payload []byte) {
	t.Helper()
	var m struct {
		Type    string
		Payload json.RawMessage
	}
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	return m.Type, m.Payload
}

func refusedWell(t *testing.T, err error) {
	t.Helper()
	if e, ok := errors.AsType[*content.Error](err); !ok || len(e.Detail) > 200 {
		t.Fatalf("refused with %v", err)
	}
}

// FuzzBody: a body that is accepted has as many operations as encoding/json finds
// requests in it, and they are the same.
func FuzzBody(f *testing.F) {
	for _, b := range bodies {
		f.Add([]byte(b.body))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := Read(post(""), data)
		if err != nil {
			refusedWell(t, err)
			return
		}
		all := []json.RawMessage{data}
		if bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("[")) {
			if err := json.Unmarshal(data, &all); err != nil {
				t.Fatal(err)
			}
		}
		if len(got) == 0 || len(got) != len(all) {
			t.Fatalf("%d operations of %d requests", len(got), len(all))
		}
		for i := range all {
			again(t, all[i], got[i])
		}
	})
}

// FuzzQuery: net/url finds each parameter once in a query that is accepted, and the
// same operation.
func FuzzQuery(f *testing.F) {
	for _, q := range queries {
		f.Add(q.query)
	}
	f.Fuzz(func(t *testing.T, query string) {
		got, err := Read(get(query), nil)
		if err != nil {
			refusedWell(t, err)
			return
		}
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		for key, v := range values {
			if len(v) > 1 && strings.Contains(strings.Join(names, " "), key) && key != "" && len(key) > 3 {
				t.Fatalf("%q stands %d times", key, len(v))
			}
		}
		s := sent{
			Query: values.Get("query"), OperationName: values.Get("operationName"),
			ID: values.Get("id"), DocumentID: values.Get("documentId"), QueryID: values.Get("queryId"),
		}
		if e := values.Get("extensions"); e != "" {
			if err := json.Unmarshal([]byte(e), &s.Extensions); err != nil {
				t.Fatal(err)
			}
		}
		want, err := s.operation()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(ops(want), got); diff != "" {
			t.Fatal(diff)
		}
	})
}

// FuzzDocument: an operation that is accepted has fields, each a name; written anew
// by the parser's own formatter, the document says the same.
func FuzzDocument(f *testing.F) {
	for _, d := range documents {
		f.Add(d.text, d.operationName)
	}
	f.Fuzz(func(t *testing.T, text, name string) {
		got, err := operation(text, name)
		if err != nil {
			refusedWell(t, err)
			return
		}
		if len(got.Fields) == 0 || len(got.Fields) > MaxTokens {
			t.Fatalf("%d fields", len(got.Fields))
		}
		for _, field := range got.Fields {
			if field == "" || strings.ContainsFunc(field, func(c rune) bool { return c > 0x7f || !nameByte(byte(c)) }) {
				t.Fatalf("field %q", field)
			}
		}
		if strings.Contains(text, `"`) {
			return // the formatter writes some texts wrongly
		}
		doc, err := parser.ParseQuery(&ast.Source{Input: text})
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		formatter.NewFormatter(&b).FormatQueryDocument(doc)
		anew, err := operation(b.String(), name)
		if err != nil {
			t.Fatalf("%v: %s", err, b.String())
		}
		if diff := cmp.Diff(got, anew); diff != "" {
			t.Fatal(diff)
		}
	})
}
