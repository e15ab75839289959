package graphql

import (
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/content"
)

func post(query string, fields ...http1.Field) *content.Head {
	if fields == nil {
		fields = http1.Fields{{Name: "content-type", Value: "application/json"}}
	}
	return &content.Head{Method: "POST", Query: query, Fields: fields, Body: true}
}

func get(query string) *content.Head { return &content.Head{Method: "GET", Query: query} }

// hashed is the SHA-256 of {__typename}.
const hashed = "ecf4edb46db40b5132295c0291d62fb65d6759a9eedfa4d5d612dd5ec54a6b38"

func persisted(id string) decide.Operation { return decide.Operation{Persisted: id} }

var bodies = []struct {
	name, body string
	want       []decide.Operation
	detail     string // of a refusal
}{
	{"an object", `{"query":"{a}"}`, ops(op("query", "", "a")), ""},
	{"members in any order", `{"variables":{"a":1},"operationName":"B","query":"query A{a} mutation B{b}"}`, ops(op("mutation", "B", "b")), ""},
	{"null is nothing", `{"query":"{a}","operationName":null,"variables":null,"extensions":null,"id":null}`, ops(op("query", "", "a")), ""},
	{"an empty name is none", `{"query":"{a}","operationName":""}`, ops(op("query", "", "a")), ""},
	{"an escaped key", `{"qu\u0065ry":"{a}"}`, ops(op("query", "", "a")), ""},
	{"escapes in the text", `{"query":"{\n\u0061}"}`, ops(op("query", "", "a")), ""},
	{"unknown members", `{"query":"{a}","debug":{"a":1,"A":2}}`, ops(op("query", "", "a")), ""},
	{"other extensions", `{"query":"{a}","extensions":{"tracing":true}}`, ops(op("query", "", "a")), ""},
	{"a batch", `[{"query":"{a}"},{"query":"mutation{b}"}]`, ops(op("query", "", "a"), op("mutation", "", "b")), ""},
	{"a batch of one", `[{"query":"{a}"}]`, ops(op("query", "", "a")), ""},
	{"a batch with a persisted query", `[{"query":"{a}"},{"id":"x"}]`, ops(op("query", "", "a"), persisted("x")), ""},
	{"a hash alone", `{"extensions":{"persistedQuery":{"version":1,"sha256Hash":"abc"}}}`, ops(persisted("abc")), ""},
	{"a hash and an empty text", `{"query":"","extensions":{"persistedQuery":{"sha256Hash":"abc"}}}`, ops(persisted("abc")), ""},
	{"a hash and a name", `{"operationName":"N","extensions":{"persistedQuery":{"sha256Hash":"abc"}}}`,
		ops(decide.Operation{Name: "N", Persisted: "abc"}), ""},
	{"no persisted query", `{"query":"{a}","extensions":{"persistedQuery":null}}`, ops(op("query", "", "a")), ""},
	{"an id", `{"id":"x"}`, ops(persisted("x")), ""},
	{"a documentId", `{"documentId":"x"}`, ops(persisted("x")), ""},
	{"a queryId", `{"queryId":"x"}`, ops(persisted("x")), ""},

	{"nothing", ``, nil, "has a body"},
	{"no object", `"{a}"`, nil, "is a JSON object"},
	{"an empty object", `{}`, nil, "has a query"},
	{"an empty batch", `[]`, nil, "not empty"},
	{"a batch in a batch", `[[{"query":"{a}"}]]`, nil, "is a JSON object"},
	{"one bad operation in a batch", `[{"query":"{a}"},{"query":"{"}]`, nil, "syntax error"},
	{"a query that is no text", `{"query":{"kind":"Document"}}`, nil, "is a text"},
	{"a query as a list", `{"query":["{a}"]}`, nil, "is a text"},
	{"two queries", `{"query":"{a}","query":"{b}"}`, nil, "stands once"},
	{"two queries, one escaped", `{"query":"{a}","quer\u0079":"{b}"}`, nil, "stands once"},
	{"two queries in two cases", `{"query":"{a}","Query":"{b}"}`, nil, "own case"},
	{"a query in another case", `{"Query":"{a}"}`, nil, "own case"},
	{"a name in another case", `{"query":"query A{a} query B{b}","operationName":"A","operationname":"B"}`, nil, "own case"},
	{"two names", `{"query":"query A{a} query B{b}","operationName":"A","operationName":"B"}`, nil, "stands once"},
	{"a key twice in variables", `{"query":"{a}","variables":{"x":1,"x":2}}`, nil, "stands once"},
	{"a name that is no text", `{"query":"{a}","operationName":1}`, nil, "operationName is a text"},
	{"two ids", `{"id":"x","queryId":"y"}`, nil, "one id or hash"},
	{"an id and a hash", `{"id":"x","extensions":{"persistedQuery":{"sha256Hash":"abc"}}}`, nil, "one id or hash"},
	{"an id and a text", `{"query":"{a}","id":"x"}`, nil, "either a query or an id"},
	{"an empty id", `{"id":""}`, nil, "not empty"},
	{"an empty id and a text", `{"query":"{a}","documentId":""}`, nil, "not empty"},
	{"an id that is a number", `{"id":1}`, nil, "is a text"},
	{"an id of another name", `{"query":"{a}","doc_id":"x"}`, nil, "called id"},
	{"an id of another name and case", `{"query":"{a}","DocID":"x"}`, nil, "own case"},
	{"extensions that are a text", `{"query":"{a}","extensions":"{}"}`, nil, "are an object"},
	{"a persisted query without hash", `{"query":"{a}","extensions":{"persistedQuery":{"version":1}}}`, nil, "with a SHA-256"},
	{"a persisted query that is a text", `{"extensions":{"persistedQuery":"abc"}}`, nil, "with a SHA-256"},
	{"a persisted query of another version", `{"extensions":{"persistedQuery":{"version":2,"sha256Hash":"abc"}}}`, nil, "is 1"},
	{"two hashes", `{"extensions":{"persistedQuery":{"sha256Hash":"a","sha256Hash":"b"}}}`, nil, "stands once"},
	{"a hash in another case", `{"query":"{a}","extensions":{"persistedquery":{"sha256Hash":"b"}}}`, nil, "own case"},
	{"a hash of another text", `{"query":"{a}","extensions":{"persistedQuery":{"version":1,"sha256Hash":"` + hashed + `"}}}`, nil, "query's SHA-256"},
	{"something behind", `{"query":"{a}"}{"query":"{b}"}`, nil, "nothing follows"},
	{"a byte order mark", "\ufeff" + `{"query":"{a}"}`, nil, "byte order mark"},
	{"UTF-16", "{\x00\"\x00q\x00", nil, "quotation mark"},
	{"invalid UTF-8", "{\"query\":\"{a}\xff\"}", nil, "UTF-8"},
	{"NUL in the text", `{"query":"{a}\u0000"}`, nil, "NUL"},
	{"a query as form", `query={a}`, nil, "is a JSON object"},
	{"a query as text", `{ a }`, nil, "quotation mark"},
}

func ops(all ...decide.Operation) []decide.Operation { return all }

func compare(t *testing.T, got []decide.Operation, err error, want []decide.Operation, detail string) {
	t.Helper()
	if detail != "" {
		expectRefusal(t, err, 400, detail)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestBodiesSayWhatTheyExecute(t *testing.T) {
	for _, tt := range bodies {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Read(post(""), []byte(tt.body))
			compare(t, got, err, tt.want, tt.detail)
		})
	}
}

var queries = []struct {
	name, query string
	want        []decide.Operation
	detail      string
}{
	{"a query", "query={a}", ops(op("query", "", "a")), ""},
	{"an encoded query", "query=%7B+a%20%7D&variables={}&cache=1", ops(op("query", "", "a")), ""},
	{"an encoded key", "%71uery={a}", ops(op("query", "", "a")), ""},
	{"a name", "operationName=B&query=query+A{a}mutation+B{b}", ops(op("mutation", "B", "b")), ""},
	{"a hash", "extensions=" + url.QueryEscape(`{"persistedQuery":{"version":1,"sha256Hash":"abc"}}`), ops(persisted("abc")), ""},
	{"an id", "documentId=x", ops(persisted("x")), ""},
	{"unlike names", "query={a}&querying=1&_=2&identity=3", ops(op("query", "", "a")), ""},

	{"nothing", "", nil, "has a query"},
	{"an empty query", "query=", nil, "has a query"},
	{"a query twice", "query={a}&query={b}", nil, "stands once"},
	{"a query twice, once encoded", "query={a}&%71uery={b}", nil, "stands once"},
	{"a query in another case", "query={a}&Query={b}", nil, "its own way"},
	{"a query in an array", "query={a}&query[]={b}", nil, "its own way"},
	{"a query in brackets", "id=a&[query]={b}", nil, "its own way"},
	{"a query in brackets, with an index", "id=a&%5Bquery%5D[0]={b}", nil, "its own way"},
	{"a query in an array, encoded", "query%5B0%5D={b}", nil, "its own way"},
	{"a query with a space", "query={a}&+query={b}", nil, "its own way"},
	{"a query with a dot", "query={a}&query.={b}", nil, "its own way"},
	{"variables twice", "query={a}&variables={}&variables={}", nil, "stands once"},
	{"two ids", "id=x&documentId=y", nil, "one id or hash"},
	{"an empty id", "id=&query={a}", nil, "not empty"},
	{"an id and a query", "id=x&query={a}", nil, "either a query or an id"},
	{"an id of another name", "query={a}&doc_id=x", nil, "called id"},
	{"a semicolon", "query={a}&x=1;query={b}", nil, "no semicolon"},
	{"a percent sign", "query=%7", nil, "percent-encoded"},
	{"a percent sign elsewhere", "query={a}&x=%zz", nil, "percent-encoded"},
	{"invalid UTF-8", "query={a}&x=%ff", nil, "percent-encoded"},
	{"NUL", "query={a}&query%00={b}", nil, "without NUL"},
	{"a byte order mark", "%ef%bb%bfquery={b}", nil, "byte order mark"},
	{"extensions that are not JSON", "query={a}&extensions=x", nil, "are an object"},
	{"something behind the extensions", "query={a}&extensions=" + url.QueryEscape(`{} {}`), nil, "nothing follows"},
	{"as many parameters as may be", "query={a}" + strings.Repeat("&", maxParameters-1), ops(op("query", "", "a")), ""},
	{"one parameter more", "query={a}" + strings.Repeat("&", maxParameters), nil, "at most 100"},
}

func TestQueriesSayWhatTheyExecute(t *testing.T) {
	for _, tt := range queries {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Read(get(tt.query), nil)
			compare(t, got, err, tt.want, tt.detail)
		})
	}
}

func TestHeadsThatCannotBeReadAreRefused(t *testing.T) {
	kind := func(v string) http1.Field { return http1.Field{Name: "Content-Type", Value: v} }
	encoding := func(v string) http1.Field { return http1.Field{Name: "Content-Encoding", Value: v} }
	json := kind("application/json")
	for _, tt := range []struct {
		name   string
		head   *content.Head
		status int // 0: accepted
		detail string
	}{
		{"JSON", post("", json), 0, ""},
		{"JSON in another case", post("", kind("Application/JSON; Charset=\"UTF-8\"")), 0, ""},
		{"no encoding", post("", json, encoding("Identity")), 0, ""},
		{"parameters that mean nothing", post("trace=1&queries=2", json), 0, ""},
		{"gzip", post("", json, encoding("gzip")), 415, "content encoding"},
		{"br", post("", json, encoding("br")), 415, "content encoding"},
		{"zstd", post("", json, encoding("zstd")), 415, "content encoding"},
		{"an unknown encoding", post("", json, encoding("x")), 415, "content encoding"},
		{"an empty encoding", post("", json, encoding("")), 415, "content encoding"},
		{"a second encoding", post("", json, encoding("identity"), encoding("gzip")), 415, "content encoding"},
		{"a list of encodings", post("", json, encoding("identity, gzip")), 415, "content encoding"},
		{"no type", post("", encoding("identity")), 415, "exactly one"},
		{"two types", post("", json, json), 415, "exactly one"},
		{"a list of types", post("", kind("application/json, text/plain")), 415, "is of type"},
		{"multipart", post("", kind("multipart/form-data; boundary=x")), 415, "is of type"},
		{"application/graphql", post("", kind("application/graphql")), 415, "is of type"},
		{"a form", post("", kind("application/x-www-form-urlencoded")), 415, "is of type"},
		{"plain text", post("", kind("text/plain")), 415, "is of type"},
		{"another JSON", post("", kind("application/vnd.api+json")), 415, "is of type"},
		{"an empty type", post("", kind("")), 415, "is of type"},
		{"UTF-16", post("", kind("application/json; charset=utf-16")), 415, "UTF-8"},
		{"UTF-7", post("", kind("application/json; charset=utf-7")), 415, "UTF-8"},
		{"two charsets", post("", kind("application/json; charset=utf-8; charset=utf-16")), 415, "is of type"},
		{"a query in two places", post("query={b}", json), 400, "in its query"},
		{"a query in two places, encoded", post("%51uery={b}", json), 400, "in its query"},
		{"a query in two places, in brackets", post("[query]={b}", json), 400, "in its query"},
		{"a query in two places, in an array", post("query[]={b}", json), 400, "in its query"},
		{"a name in two places", post("operationName=X", json), 400, "in its query"},
		{"an id in two places", post("doc_id=X", json), 400, "in its query"},
		{"GET with a body", &content.Head{Method: "GET", Query: "query={a}", Body: true}, 400, "no body"},
		{"HEAD", &content.Head{Method: "HEAD", Query: "query={a}"}, 400, "GET or POST"},
		{"PUT", &content.Head{Method: "PUT", Fields: http1.Fields{json}, Body: true}, 400, "GET or POST"},
		{"post", &content.Head{Method: "post", Fields: http1.Fields{json}, Body: true}, 400, "GET or POST"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var body []byte
			if tt.head.Method != "GET" {
				body = []byte(`{"query":"{a}"}`)
			}
			got, err := Read(tt.head, body)
			if tt.status != 0 {
				expectRefusal(t, err, tt.status, tt.detail)
				return
			}
			compare(t, got, err, ops(op("query", "", "a")), "")
		})
	}
}

func TestBatchesHaveALimit(t *testing.T) {
	batch := func(n int) []byte { return []byte("[" + strings.Repeat(`{"query":"{a}"},`, n-1) + `{"query":"{a}"}]`) }
	if got, err := Read(post(""), batch(MaxBatch)); err != nil || len(got) != MaxBatch {
		t.Errorf("got %d, %v", len(got), err)
	}
	_, err := Read(post(""), batch(MaxBatch+1))
	expectRefusal(t, err, 400, "at most 100")
}

// TestAHashBesideAQueryIsItsOwn: otherwise a server would remember a text that was
// judged under a hash that rules know as another.
func TestAHashBesideAQueryIsItsOwn(t *testing.T) {
	const known = hashed
	body := func(query, hash string) []byte {
		return []byte(`{"query":"` + query + `","extensions":{"persistedQuery":{"version":1,"sha256Hash":"` + hash + `"}}}`)
	}
	got, err := Read(post(""), body("{__typename}", known))
	compare(t, got, err, ops(op("query", "", "__typename")), "")
	for _, b := range [][]byte{
		body("{__typename }", known), body("{__typename}", strings.ToUpper(known)), body("{__typename}", known[:63]), body("{__typename}", " "+known),
	} {
		_, err := Read(post(""), b)
		expectRefusal(t, err, 400, "query's SHA-256")
	}
}
