package policy

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// TestAComposedPolicyMaySayWhatOnlyTheSystemMay: names and marks that a file may not have.
func TestAComposedPolicyMaySayWhatOnlyTheSystemMay(t *testing.T) {
	const source = `version: 1
network_policies:
  _provider_x:
    endpoints: [{host: a.example.com, port: 1, protocol: rest, enforcement: enforce, access: full, provider_credentialed: true}]
    binaries: [{path: /x}]
  proposed:
    endpoints: [{host: b.example.com, port: 1, advisor_proposed: true}, {host: c.example.com, port: 1}]
    binaries: [{path: /x}]
  grown:
    endpoints: [{host: d.example.com, port: 1}, {host: e.example.com, port: 1}]
    binaries: [{path: /x}, {path: /y, advisor_proposed: true}]
`
	if _, _, err := Parse("f", []byte(source)); err == nil {
		t.Error("a file may say it, too")
	}
	doc, warnings, err := ParseComposed("f", []byte(source))
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	got := make(map[string][]bool) // endpoints, then binaries
	for name, r := range doc.Network {
		for _, e := range r.Endpoints {
			got[name] = append(got[name], e.AdvisorProposed)
		}
		for _, b := range r.Binaries {
			got[name] = append(got[name], b.AdvisorProposed)
		}
	}
	// A program that the workload proposed makes proposals of where it gets to.
	want := map[string][]bool{"_provider_x": {false, false}, "proposed": {true, false, false}, "grown": {true, true, false, true}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestCredentialsOfTheControlPlaneGoWhereRequestsAreInspected or the policy says otherwise.
func TestCredentialsOfTheControlPlaneGoWhereRequestsAreInspected(t *testing.T) {
	const rest = ", protocol: rest, enforcement: enforce, access: full"
	for endpoint, refused := range map[string]bool{
		"":                true,
		", tls: skip":     true,
		", protocol: tcp": true,
		", protocol: sql, enforcement: audit, access: full": true,
		rest:                                    false,
		", allow_uninspected_credentials: true": false,
		", allow_uninspected_credentials: true, tls: skip": false,
	} {
		source := "version: 1\nnetwork_policies: {r: {binaries: [{path: /x}], endpoints: [{host: a.example.com, port: 1, provider_credentialed: MARK" + endpoint + "}]}}"
		_, _, err := ParseComposed("f", []byte(strings.Replace(source, "MARK", "true", 1)))
		said := err != nil && strings.Contains(err.Error(), "network_policies.r.endpoints[0].provider_credentialed: there are credentials")
		if said != refused || !refused && err != nil {
			t.Errorf("%q is refused %t: %v", endpoint, refused, err)
		}
		if _, _, err := ParseComposed("f", []byte(strings.Replace(source, "MARK", "false", 1))); err != nil {
			t.Errorf("%q without the mark: %v", endpoint, err)
		}
	}
}

// TestAComposedPolicyIsOtherwiseReadAsAFile: the same problems, or the same document.
func TestAComposedPolicyIsOtherwiseReadAsAFile(t *testing.T) {
	sources := make(map[string]string)
	for _, c := range readBroken(t) {
		if !strings.Contains(c.problems, "reserved") && !strings.Contains(c.problems, "set by the system only") {
			sources[c.name] = c.source
		}
	}
	complete, err := os.ReadFile("testdata/complete.yaml")
	if err != nil {
		t.Fatal(err)
	}
	sources["complete"] = string(complete)
	for name, source := range sources {
		doc, warnings, err := Parse("f", []byte(source))
		composed, w, e := ParseComposed("f", []byte(source))
		if text(err) != text(e) || !cmp.Equal(warnings, w) || !cmp.Equal(doc, composed, cmpopts.EquateComparable(AllowedIP{}.Prefix)) {
			t.Errorf("%s: another answer\n%v\n%v", name, err, e)
		}
	}
}
