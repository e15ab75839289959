package strictjson

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

// slow reads a text with encoding/json, token by token, and says what it finds.
type slow struct {
	dec   *json.Decoder
	twice bool
	deep  bool
}

func (s *slow) value(depth int) error {
	t, err := s.dec.Token()
	if err != nil {
		return err
	}
	d, ok := t.(json.Delim)
	if !ok {
		return nil
	}
	s.deep = s.deep || depth > MaxDepth
	seen := map[string]bool{}
	for s.dec.More() {
		if d == '{' {
			k, err := s.dec.Token()
			if err != nil {
				return err
			}
			s.twice = s.twice || seen[k.(string)]
			seen[k.(string)] = true
		}
		if err := s.value(depth + 1); err != nil {
			return err
		}
	}
	_, err = s.dec.Token()
	return err
}

// FuzzStrictJSON: a text that is accepted is valid for encoding/json, and a slow
// walk with it finds no key twice; one that is refused is invalid there, or has what
// is refused here alone.
func FuzzStrictJSON(f *testing.F) {
	for _, c := range cases {
		if len(c.text) < 1<<14 {
			f.Add([]byte(c.text))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		err := read(string(data))
		valid := json.Valid(data) && utf8.Valid(data)
		s := slow{dec: json.NewDecoder(bytes.NewReader(data))}
		if valid {
			if err := s.value(1); err != nil {
				t.Fatalf("the walk failed: %v", err)
			}
		}
		lower := strings.ToLower(string(data))
		own := s.twice || s.deep || strings.Contains(lower, `\ud`) || strings.Contains(lower, `\u0000`)
		switch {
		case err == nil && (!valid || s.twice || s.deep):
			t.Fatalf("accepted: valid %v, twice %v, deep %v", valid, s.twice, s.deep)
		case err != nil && valid && !own:
			t.Fatalf("refused without need: %v", err)
		case err != nil:
			if e, ok := err.(*Error); !ok || e.Offset > len(data) || len(e.Detail) > 100 {
				t.Fatalf("refused with %v", err)
			}
		}
	})
}

// FuzzNames: of an object that is accepted with names no two keys are equal for
// strings.EqualFold, nor a key and another name; a struct that encoding/json fills
// has the same values.
func FuzzNames(f *testing.F) {
	for _, s := range []string{`{"method":"a","id":"b"}`, `{"Method":"a"}`, `{"id":"1","\u0069d":"2"}`, `{"taſk":"1","x":{"a":1}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := New(data)
		if err != nil || r.Kind() != Object {
			return
		}
		got := map[string]string{}
		var keys []string
		err = r.Object(Names{"method", "id", "task"}, func(key string) (err error) {
			keys = append(keys, key)
			if r.Kind() == String {
				got[key], err = r.String()
			}
			return err
		})
		if err != nil || r.End() != nil {
			return
		}
		for i, k := range keys[:min(len(keys), 200)] {
			for _, o := range keys[:i] {
				if strings.EqualFold(k, o) {
					t.Fatalf("accepted %q beside %q", k, o)
				}
			}
		}
		var want struct{ Method, ID, Task any }
		if err := json.Unmarshal(data, &want); err != nil {
			t.Fatal(err)
		}
		for key, v := range map[string]any{"method": want.Method, "id": want.ID, "task": want.Task} {
			if s, ok := v.(string); ok && s != got[key] || !ok && got[key] != "" {
				t.Fatalf("%s is %q here and %s there", key, got[key], fmt.Sprint(v))
			}
		}
	})
}
