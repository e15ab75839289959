package strictjson

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// nested is a text of n arrays in one another.
func nested(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }

// manyKeys is an object of n keys, followed by more members.
func manyKeys(n int, more string) string {
	var b strings.Builder
	b.WriteString("{")
	for i := range n {
		fmt.Fprintf(&b, `"k%d":%d,`, i, i)
	}
	return b.String() + more + "}"
}

var cases = []struct {
	name, text, detail string // no detail: accepted
}{
	{"an object", `{"a":1,"b":[true,false,null,"x"],"c":{}}`, ""},
	{"white space everywhere", " \t\r\n{ \"a\" : [ 1 , 2 ] } \n", ""},
	{"a bare number", `-0.5e+10`, ""},
	{"every escape", `"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00"`, ""},
	{"a replacement character", `"\ufffd` + "\ufffd" + `"`, ""},
	{"one key in two objects", `[{"a":1},{"a":{"a":1}}]`, ""},
	{"keys in two cases, of somebody else", `{"a":1,"A":2}`, ""},
	{"many keys", manyKeys(100, `"l":0`), ""},
	{"many keys in many objects", "[" + manyKeys(20, `"l":`+manyKeys(20, `"k0x":0`)) + "," + manyKeys(20, `"l":0`) + "]", ""},
	{"as deep as may be", nested(MaxDepth), ""},

	{"one deeper", nested(MaxDepth + 1), "at most 128 deep"},
	{"far too deep", strings.Repeat("[", 1<<20), "at most 128 deep"},
	{"nothing", "", "ends before its value"},
	{"only white space", " \n", "ends before its value"},
	{"a key twice", `{"a":1,"b":2,"a":3}`, "stands once"},
	{"a key twice, once escaped", `{"a":1,"\u0061":2}`, "stands once"},
	{"a key twice, deep inside", `[[{"x":{"a":1,"a":1}}]]`, "stands once"},
	{"a key twice, behind an object", `{"a":{"b":1},"a":3}`, "stands once"},
	{"a key twice among many", manyKeys(100, `"k99":0`), "stands once"},
	{"the first of many twice", manyKeys(17, `"k0":0`), "stands once"},
	{"a key twice at the edge of few", manyKeys(16, `"k15":0`), "stands once"},
	{"an empty key twice", `{"":1,"":2}`, "stands once"},
	{"a slash key twice", `{"a/b":1,"a\/b":2}`, "stands once"},
	{"a pair key twice", `{"` + "\U0001F600" + `":1,"\ud83d\ude00":2}`, "stands once"},
	{"two values", `{} {}`, "nothing follows"},
	{"a comma too many in an array", `[1,]`, "a value is"},
	{"a comma too many in an object", `{"a":1,}`, "begins with a quotation mark"},
	{"no comma", `[1 2]`, "separated by commas"},
	{"no colon", `{"a" 1}`, "followed by a colon"},
	{"a wrong bracket", `[1}`, "separated by commas"},
	{"no end", `{"a":[1`, "separated by commas"},
	{"a key without quotation marks", `{a:1}`, "begins with a quotation mark"},
	{"single quotation marks", `{'a':1}`, "begins with a quotation mark"},
	{"a comment", "{/* */}", "begins with a quotation mark"},
	{"a number with a leading zero", `[01]`, "separated by commas"},
	{"a plus sign", `[+1]`, "a value is"},
	{"a point without digits", `[1.]`, "as JSON writes it"},
	{"an exponent without digits", `[1e]`, "as JSON writes it"},
	{"only a minus sign", `[-]`, "as JSON writes it"},
	{"hexadecimal", `[0x1]`, "separated by commas"},
	{"not a number", `[NaN]`, "a value is"},
	{"nearly true", `[tru]`, "a value is"},
	{"capital letters", `[True]`, "a value is"},
	{"a control character", "[\"a\nb\"]", "no control character"},
	{"a control character behind an escape", "[\"\\na\tb\"]", "no control character"},
	{"an unknown escape", `["\x41"]`, "an escape is one"},
	{"an escape that ends", `["\u00`, "an escape is one"},
	{"a backslash at the end", `["\`, "ends before its value"},
	{"a text without end", `["abc`, "ends before its value"},
	{"a text without end behind an escape", `["\nabc`, "ends before its value"},
	{"NUL, escaped", `["a\u0000"]`, "no NUL"},
	{"NUL in a key", `{"method\u0000":1}`, "no NUL"},
	{"NUL", "[\"a\x00\"]", "no control character"},
	{"half a surrogate pair", `["\ud83d"]`, "half of a surrogate"},
	{"the other half", `["\ude00"]`, "half of a surrogate"},
	{"halves in the wrong order", `["\ude00\ud83d"]`, "half of a surrogate"},
	{"half a pair and an escape", `["\ud83d\n"]`, "half of a surrogate"},
	{"half a pair and a letter", `["\ud83d\u0041"]`, "half of a surrogate"},
	{"a byte order mark", "\ufeff{}", "byte order mark"},
	{"UTF-16, little end first", "{\x00}\x00", "begins with a quotation mark"},
	{"UTF-16, big end first", "\x00{\x00}", "a value is"},
	{"UTF-16 with a mark", "\xff\xfe{\x00}\x00", "UTF-8"},
	{"Latin-1", "[\"\xe9\"]", "UTF-8"},
	{"an overlong slash", "[\"\xc0\xaf\"]", "UTF-8"},
	{"a surrogate in UTF-8", "[\"\xed\xa0\xbd\"]", "UTF-8"},
	{"UTF-7", "+AHs-", "a value is"},
}

// read reads a text to its end.
func read(text string) error {
	r, err := New([]byte(text))
	if err != nil {
		return err
	}
	if err := r.Skip(); err != nil {
		return err
	}
	return r.End()
}

func TestTextsAreReadInOneWayOrRefused(t *testing.T) {
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) { expect(t, read(tt.text), tt.detail) })
	}
}

func expect(t *testing.T, err error, detail string) {
	t.Helper()
	if detail == "" {
		if err != nil {
			t.Fatalf("refused: %v", err)
		}
		return
	}
	e, ok := errors.AsType[*Error](err)
	if !ok || !strings.Contains(e.Detail, detail) {
		t.Fatalf("got %v, want a refusal with %q", err, detail)
	}
}

func TestNamesAreWrittenInTheirOwnCase(t *testing.T) {
	names := Names{"method", "id", "task"}
	for _, tt := range []struct{ name, text, detail string }{
		{"a name", `{"method":1,"other":2}`, ""},
		{"nearly a name", `{"methods":1,"ıd":2}`, ""},
		{"another case", `{"Method":1}`, "own case"},
		{"both cases", `{"method":1,"METHOD":1}`, "own case"},
		{"another case, escaped", `{"\u004dethod":1}`, "own case"},
		{"a long s", `{"taſk":1}`, "own case"},
		{"the sign for kelvin", `{"tas` + "\u212a" + `":1}`, "own case"},
		{"two unknown keys in two cases", `{"extra":1,"Extra":1}`, "stands once"},
		{"two unknown keys, one with a long s", `{"s":1,"ſ":1}`, "stands once"},
		{"two cases among many", manyKeys(50, `"K49":0`), "stands once"},
		{"two cases in data inside", `{"method":{"a":1,"A":1}}`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := New([]byte(tt.text))
			if err != nil {
				t.Fatal(err)
			}
			expect(t, r.Object(names, nil), tt.detail)
		})
	}
}

func TestMembersAreReadOrSkipped(t *testing.T) {
	r, err := New([]byte(` { "skip" : {"a":[1]} , "text" : "v\u00e9" , "list": [ 1 , "two" , {} ] , "n" : 1.50 } `))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	err = r.Object(nil, func(key string) error {
		var s string
		var err error
		switch key {
		case "text":
			s, err = r.String()
		case "n":
			s, err = r.Number()
		case "list":
			return r.Array(func(i int) error {
				if r.Kind() != String {
					return nil
				}
				s, err := r.String()
				got = append(got, fmt.Sprint(i, s))
				return err
			})
		}
		got = append(got, key+s)
		return err
	})
	if err == nil {
		err = r.End()
	}
	if want := "[skip textvé 1two n1.50]"; err != nil || fmt.Sprint(got) != want {
		t.Errorf("got %v, %v, want %s", got, err, want)
	}
}

func TestLaterReadsTheValueAgain(t *testing.T) {
	r, _ := New([]byte(`{"p":{"k":"v","k2":1},"t":"x"}`))
	var later *Reader
	if err := r.Object(nil, func(key string) error {
		if key == "p" {
			later = r.Later()
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	var got string
	if err := later.Object(Names{}, func(key string) (err error) {
		if key == "k" {
			got, err = later.String()
		}
		return err
	}); err != nil || got != "v" {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestLargeObjectsTakeLinearTime: an object of many keys is not compared pair
// by pair.
func TestLargeObjectsTakeLinearTime(t *testing.T) {
	text := manyKeys(300_000, `"k7":0`)
	start := time.Now()
	expect(t, read(text), "stands once")
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("took %v", d)
	}
}

func BenchmarkSkip(b *testing.B) {
	data := []byte(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read_file","arguments":{"path":"/tmp/x"}}}`)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		r, err := New(data)
		if err == nil {
			err = r.Skip()
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}
