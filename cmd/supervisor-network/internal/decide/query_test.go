package decide

import (
	"math/rand/v2"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzParameters: what can be read is what the standard library reads, in both readings;
// what it refuses cannot be read; and a key is compared as it decodes.
func FuzzParameters(f *testing.F) {
	for _, q := range []string{"", "a=b&c=d", "a;b=c", "&&=&=x&a", "%61=%3B&a=%26;a=1", "a=+&+=a", "a=%", "a=%00", "%C3%A9=\u00e9", "a=%C3;b=%A9"} {
		f.Add(q, "a")
	}
	f.Fuzz(func(t *testing.T, query, key string) {
		want, err := url.ParseQuery(strings.ReplaceAll(query, ";", "&"))
		readable := err == nil && !strings.Contains(query, "\x00")
		for k, values := range want {
			for _, s := range append(values, k) {
				readable = readable && utf8.ValidString(s) && !strings.Contains(s, "\x00")
			}
		}
		if got := queryReadable(query); got != readable {
			t.Fatalf("%q: readable %v, want %v", query, got, readable)
		}
		if !readable {
			return
		}
		if got := read(parameters{query, true}); !reflect.DeepEqual(got, want) {
			t.Errorf("%q, with semicolons: %v, want %v", query, got, want)
		}
		want, err = url.ParseQuery(strings.ReplaceAll(query, ";", "%3B")) // which is how it reads one
		if got := read(parameters{rest: query}); !reflect.DeepEqual(got, want) || err != nil {
			t.Errorf("%q: %v, want %v, %v", query, got, want, err)
		}
		walk := parameters{rest: query}
		for sent, _, ok := walk.next(); ok; sent, _, ok = walk.next() {
			if got := isKey(sent, key); got != (decode(sent) == key) {
				t.Errorf("%q is the key %q: %v", sent, key, got)
			}
		}
	})
}

func read(walk parameters) url.Values {
	out := url.Values{}
	for key, value, ok := walk.next(); ok; key, value, ok = walk.next() {
		out[decode(key)] = append(out[decode(key)], decode(value))
	}
	return out
}

// TestSpellingsAgree: the compiled rules' way to compare names, and the module's.
func TestSpellingsAgree(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	parts := []string{"a", "A", "b", ".", "_", "+", "%20", "[", "%5B", "]", "%C5%BF", "s", "S", "%E2%84%AA", "k", "é"}
	text := func() (out string) {
		for range r.IntN(5) {
			out += pick(r, parts)
		}
		return out
	}
	same := 0
	for range 200_000 {
		key, sent := decode(text()), text()
		want := slices.Contains(spellings(decode(sent)), spelling(key))
		if got := spelledAs(sent, spelling(key)); got != want {
			t.Fatalf("%q as %q: %v, want %v", sent, key, got, want)
		}
		if want {
			same++
		}
	}
	if same < 1000 {
		t.Errorf("%d names are alike", same)
	}
}
