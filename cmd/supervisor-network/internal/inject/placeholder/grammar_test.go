package placeholder

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPlaceholdersAreRead(t *testing.T) {
	handle := strings.Repeat("0a", 32)
	cases := []struct {
		name, in string
		want     Reference
		ok       bool
	}{
		{"canonical", "openshell:resolve:env:GITHUB_TOKEN", Reference{Key: "GITHUB_TOKEN", Form: Canonical}, true},
		{"digits and lower case", "openshell:resolve:env:a1_b", Reference{Key: "a1_b", Form: Canonical}, true},
		{"revision", "openshell:resolve:env:v12_KEY", Reference{Key: "KEY", Form: Revision, Revision: 12}, true},
		{"largest revision", "openshell:resolve:env:v18446744073709551615_K", Reference{Key: "K", Form: Revision, Revision: 1<<64 - 1}, true},
		{"stable handle", "openshell:resolve:env:s" + handle + "_KEY", Reference{Key: "KEY", Form: Stable, Handle: handle}, true},
		{"alias", "sk-OPENSHELL-RESOLVE-ENV-KEY", Reference{Key: "KEY", Form: Alias}, true},
		{"alias with a long prefix", "ghp_a.b~c-OPENSHELL-RESOLVE-ENV-KEY_2", Reference{Key: "KEY_2", Form: Alias}, true},
		{"a v without digits is a key", "openshell:resolve:env:v_KEY", Reference{Key: "v_KEY", Form: Canonical}, true},
		{"a v with more than digits is a key", "openshell:resolve:env:v1x_KEY", Reference{Key: "v1x_KEY", Form: Canonical}, true},
		{"63 digits are no handle", "openshell:resolve:env:s" + handle[:63] + "_KEY", Reference{Key: "s" + handle[:63] + "_KEY", Form: Canonical}, true},
		{name: "no key", in: "openshell:resolve:env:"},
		{name: "a revision without a key", in: "openshell:resolve:env:v1_"},
		{name: "a revision of a revision", in: "openshell:resolve:env:v1_v2_KEY"},
		{name: "too large a revision", in: "openshell:resolve:env:v18446744073709551616_K"},
		{name: "a handle without a key", in: "openshell:resolve:env:s" + handle + "_"},
		{name: "alias without a prefix", in: "OPENSHELL-RESOLVE-ENV-KEY"},
		{name: "alias without a key", in: "sk-OPENSHELL-RESOLVE-ENV-"},
		{name: "alias with more behind it", in: "sk-OPENSHELL-RESOLVE-ENV-KEY.x"},
		{name: "alias of a revision", in: "sk-OPENSHELL-RESOLVE-ENV-v1_KEY"},
		{name: "something in front", in: " openshell:resolve:env:KEY"},
		{name: "something behind", in: "openshell:resolve:env:KEY "},
		{name: "two", in: "openshell:resolve:env:Aopenshell:resolve:env:B"},
		{name: "another case", in: "OpenShell:resolve:env:KEY"},
		{name: "too long a key", in: Marker + strings.Repeat("K", MaxKeyBytes+1)},
		{"the longest key", Marker + strings.Repeat("K", MaxKeyBytes), Reference{Key: strings.Repeat("K", MaxKeyBytes), Form: Canonical}, true},
	}
	for _, c := range cases {
		got, ok := Parse(c.in)
		if diff := cmp.Diff(c.want, got); ok != c.ok || diff != "" {
			t.Errorf("%s: %v\n%s", c.name, ok, diff)
		}
		if ok && got.Form != Alias && got.String() != c.in {
			t.Errorf("%s: written as %q", c.name, got.String())
		}
	}
}

func TestPlaceholdersAreReplacedWhereTheyStand(t *testing.T) {
	value := func(r Reference, _, _ int) (string, error) { return "<" + r.Key + ">", nil }
	for _, c := range []struct{ name, in, want string }{
		{"none", "text", "text"},
		{"whole", Marker + "A", "<A>"},
		{"inside", "a=" + Marker + "A; b=" + Marker + "B;", "a=<A>; b=<B>;"},
		{"next to each other", Marker + "A" + Marker + "B", "<A><B>"},
		{"an alias is a whole token", "key=sk-" + AliasMarker + "A, x", "key=<A>, x"},
		{"an alias next to a canonical one", Marker + "A:sk-" + AliasMarker + "B", "<A>:<B>"},
		{"what is none stays", Marker + "; " + Marker + "A", Marker + "; <A>"},
		{"an alias without a prefix stays", AliasMarker + "A", AliasMarker + "A"},
	} {
		got, err := Replace(c.in, value)
		if err != nil || got != c.want {
			t.Errorf("%s: %q, %v", c.name, got, err)
		}
	}
	fails := errors.New("no")
	if _, err := Replace("x"+Marker+"A", func(Reference, int, int) (string, error) { return "", fails }); !errors.Is(err, fails) {
		t.Errorf("error %v", err)
	}
}

func TestRedactedTextHasNoMarker(t *testing.T) {
	for in, want := range map[string]string{
		"/a":                             "/a",
		"/bot" + Marker + "A/send":       "/bot[CREDENTIAL]/send",
		Marker + "v1_A":                  "[CREDENTIAL]",
		Marker:                           "[CREDENTIAL]",
		"/x-" + AliasMarker + "A.b/c":    "/[CREDENTIAL]/c",
		AliasMarker:                      "[CREDENTIAL]",
		Marker + "A" + AliasMarker + "B": "[CREDENTIAL]" + "[CREDENTIAL]",
	} {
		got := Redact(in)
		if Has(got) {
			t.Errorf("%q still has a marker: %q", in, got)
		}
		if got != want && in != Marker+"A"+AliasMarker+"B" {
			t.Errorf("%q: %q", in, got)
		}
	}
}

// FuzzReplace: what is replaced was valid, and what is not replaced is as it was.
func FuzzReplace(f *testing.F) {
	for _, s := range []string{Marker + "A", "x" + Marker + "v1_A y", "sk-" + AliasMarker + "K", Marker + Marker + "A", AliasMarker + AliasMarker + "A"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		rest, last := "", 0
		out, err := Replace(s, func(r Reference, start, end int) (string, error) {
			if got, ok := Parse(s[start:end]); !ok || got != r || start < last {
				t.Fatalf("%q is replaced as %+v", s[start:end], r)
			}
			rest += s[last:start] + "\x00"
			last = end
			return "\x00", nil
		})
		if err != nil || out != rest+s[last:] {
			t.Fatalf("%q became %q, %v", s, out, err)
		}
		if Has(Redact(s)) {
			t.Fatalf("%q redacted is %q", s, Redact(s))
		}
	})
}

// TestMarkersOfTheOtherKindAreLookedForOnce: however many there are of one kind, so that a
// long text takes no longer than its length.
func TestMarkersOfTheOtherKindAreLookedForOnce(t *testing.T) {
	for one, other := range map[string]string{Marker + "A ": " x" + AliasMarker + "A", "x" + AliasMarker + "A ": Marker + "A"} {
		m := marks{s: strings.Repeat(one, 3) + other, lower: -1, upper: -1}
		_, _, at, _ := m.next(0)
		far := &m.lower
		if m.upper > m.lower {
			far = &m.upper
		}
		if *far < 3*len(one) {
			t.Fatalf("%q is at %d", other, *far)
		}
		*far = len(m.s) // what was found is believed
		for range 2 {
			_, _, at, _ = m.next(at)
		}
		if _, start, _, _ := m.next(at); start != -1 {
			t.Errorf("behind three of %q, %q was looked for again: found at %d", one, other, start)
		}
	}
}
