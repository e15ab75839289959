package policy

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/splitpod/splitpod/pkg/core/strictyaml"
)

// apartFromPlaces compares documents by what they say.
var apartFromPlaces = cmp.Options{
	cmpopts.IgnoreTypes(strictyaml.Position{}),
	cmpopts.EquateEmpty(),
	cmpopts.EquateComparable(AllowedIP{}.Prefix),
}

func checkRoundTrip(t *testing.T, source string, doc *Document) {
	t.Helper()
	written := Encode(doc)
	again, _, err := Parse("written", written)
	if err != nil {
		t.Fatalf("what was written is not read again: %v\n%s", err, written)
	}
	if diff := cmp.Diff(doc, again, apartFromPlaces); diff != "" {
		t.Fatalf("what is read again is another policy (-was +is):\n%s\n%s\nfrom:\n%s", diff, written, source)
	}
	if twice := Encode(again); string(twice) != string(written) {
		t.Fatalf("writing twice gives two texts:\n%s\n%s", written, twice)
	}
}

func TestWhatIsWrittenIsReadAsTheSamePolicy(t *testing.T) {
	for _, name := range []string{"testdata/complete.yaml", "testdata/many.yaml"} {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		doc, _, err := Parse(name, data)
		if err != nil {
			if strings.Contains(name, "complete") {
				t.Fatal(err)
			}
			continue // it holds problems on purpose
		}
		checkRoundTrip(t, string(data), doc)
	}
}

func TestEncodeQuotesWhatYAMLWouldRead(t *testing.T) {
	doc := &Document{Version: 1, Filesystem: Filesystem{IncludeWorkdir: true}, Landlock: Landlock{Compatibility: BestEffort}, Network: map[string]Rule{"no": {
		Name: "0443",
		Endpoints: []Endpoint{{Host: "a.example.com", Ports: []uint16{443}, Protocol: ProtocolREST, Enforce: true, PersistedQueries: "deny",
			GraphQLMaxBodyBytes: defaultBody,
			Allow:               []Matcher{{Method: "GET", Path: "/:{a,b}*~!", Query: map[string][]string{"on": {"~"}, "1": {"y", "null"}}}}}},
		Binaries: []Binary{{Path: "/usr/bin/- x"}},
	}}}
	checkRoundTrip(t, "", doc)
}

// TestEncodeHidesNothing: a letter that looks like another, one that is not seen and one
// that stacks on its neighbour are seen by who approves what is written.
func TestEncodeHidesNothing(t *testing.T) {
	doc, _, err := Parse("f", []byte("version: 1\nnetwork_policies: {r: {endpoints: [{host: a.example.com, port: 443}], "+
		"binaries: [{path: /tmp/c\u0443rl}, {path: /tmp/curl\u3164}, {path: /tmp/curl\u0301}, {path: /tmp/\U0001f600}]}}"))
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range Encode(doc) {
		if c > '~' || c < ' ' && c != '\n' {
			t.Fatalf("%q at %d", c, i)
		}
	}
	checkRoundTrip(t, "", doc)
}

func TestMarksOfTheSystemAreNeverWritten(t *testing.T) {
	doc := &Document{Version: 1, Network: map[string]Rule{"r": {Name: "r",
		Endpoints: []Endpoint{{Host: "a.example.com", Ports: []uint16{443}, AdvisorProposed: true}},
		Binaries:  []Binary{{Path: "/bin/x", AdvisorProposed: true}}}}}
	if out := string(Encode(doc)); strings.Contains(out, "advisor") {
		t.Errorf("the mark is in the file, where it would be refused:\n%s", out)
	}
}

// FuzzEncode: a policy that is read is the same policy when it is written and read
// again.
func FuzzEncode(f *testing.F) {
	data, err := os.ReadFile("testdata/complete.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(data))
	f.Add("version: 1\nnetwork_policies: {\"\\u00e9: \": {endpoints: [{host: a.b.c, port: 1, protocol: rest, rules: [{allow: {method: GET, path: '/#'}}]}]}}")
	f.Fuzz(func(t *testing.T, source string) {
		doc, _, err := Parse("f", []byte(source))
		if err != nil {
			return
		}
		checkRoundTrip(t, source, doc)
	})
}
