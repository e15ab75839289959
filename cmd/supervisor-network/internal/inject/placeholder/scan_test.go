package placeholder

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
)

// decodedForm decodes percent escapes over and over: slow, and obviously right.
func decodedForm(s string) string {
	for {
		var out []byte
		for i := 0; i < len(s); i++ {
			if s[i] == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]) {
				out = append(out, unhex(s[i+1])<<4|unhex(s[i+2]))
				i += 2
				continue
			}
			out = append(out, s[i])
		}
		if string(out) == s {
			return s
		}
		s = string(out)
	}
}

// encodings of one text, some characters more deeply than others.
func encode(s string, depth func(i int) int) string {
	var b strings.Builder
	for i := range len(s) {
		piece := string(s[i])
		for range depth(i) {
			var next strings.Builder
			for j := range len(piece) {
				if j == 0 || depth(j+i)%2 == 0 {
					fmt.Fprintf(&next, "%%%02x", piece[j])
				} else {
					next.WriteByte(piece[j])
				}
			}
			piece = next.String()
		}
		b.WriteString(piece)
	}
	return b.String()
}

func TestAMarkerIsFoundInEveryEncoding(t *testing.T) {
	for _, marker := range []string{Marker, AliasMarker} {
		for name, s := range map[string]string{
			"as it is":                 marker,
			"one character encoded":    encode(marker, func(i int) int { return min(1, i%7) / 1 % 2 }),
			"all encoded":              encode(marker, func(int) int { return 1 }),
			"twice encoded":            encode(marker, func(int) int { return 2 }),
			"every other one":          encode(marker, func(i int) int { return i % 2 }),
			"to different depths":      encode(marker, func(i int) int { return i % 4 }),
			"upper-case digits":        strings.ReplaceAll(strings.ToUpper(encode(marker, func(int) int { return 1 })), "%3A", "%3a"),
			"the percent sign encoded": "%2525" + fmt.Sprintf("%02x", marker[0]) + marker[1:],
			"the digits encoded":       "%" + fmt.Sprintf("%%%02x%%%02x", "0123456789abcdef"[marker[0]>>4], "0123456789abcdef"[marker[0]&15]) + marker[1:],
			"behind percent signs":     "%%%%%%" + marker,
			"behind an open escape":    "%2" + marker,
			"behind its own start":     marker[:15] + marker,
		} {
			for _, frame := range []string{"%s", "xx%s", "%sKEY", "o%sKEY tail", "openshell%s", strings.Repeat("z", block) + "%s", strings.Repeat("z", block-7) + "%s" + strings.Repeat("z", block)} {
				text := fmt.Sprintf(strings.ReplaceAll(frame, "%s", "%[1]s"), s)
				if !Found(text) {
					t.Errorf("%s, %s is not found in a frame of %d", marker, name, len(frame))
				}
				checkAgainstDecoding(t, []byte(text), 1)
				checkAgainstDecoding(t, []byte(text), 5)
				checkAgainstDecoding(t, []byte(text), block+3)
				checkAgainstDecoding(t, []byte(text), len(text))
			}
		}
	}
}

func TestNearMissesPass(t *testing.T) {
	for _, s := range []string{
		"", "%", "%%", "%6", "%zz", Marker[:21], AliasMarker[:21], Marker[1:], "Openshell:resolve:env:", "openshell:resolve:env;",
		"OPENSHELL-RESOLVE-ENV_", "openshell:resolve:env%3", "openshell:resolve:env%3B", "openshell:resolve%20:env:", "%ff%00",
		`openshell:resolve:\u0065nv:`, strings.Repeat("v", 1000), strings.Repeat("%", 1000), strings.Repeat("%25", 1000),
	} {
		if Found(s) {
			t.Errorf("%q is taken for a marker", s)
		}
		checkAgainstDecoding(t, []byte(s), 3)
	}
}

// checkAgainstDecoding holds the reader to what decoding over and over finds, with the
// bytes split into parts of the given size.
func checkAgainstDecoding(t *testing.T, data []byte, size int) {
	t.Helper()
	decoded := decodedForm(string(data))
	want := strings.Contains(decoded, Marker) || strings.Contains(decoded, AliasMarker)

	check := func(who string, got []byte, err error) {
		t.Helper()
		if errors.Is(err, ErrMarker) != want || err != nil && !want {
			t.Fatalf("%s, parts of %d: %v for %q", who, size, err, data)
		}
		if !want && !bytes.Equal(got, data) || !bytes.HasPrefix(data, got) {
			t.Fatalf("%s, parts of %d: %q became %q", who, size, data, got)
		}
		if passed := decodedForm(string(got)); strings.Contains(passed, Marker) || strings.Contains(passed, AliasMarker) {
			t.Fatalf("%s, parts of %d: %q let %q pass", who, size, data, got)
		}
	}
	got, err := io.ReadAll(NewReader(&parts{data, size}))
	check("the reader", got, err)
	got, err = io.ReadAll(NewReader(iotest.DataErrReader(&parts{data, size})))
	check("the reader with the error beside the data", got, err)
}

// parts yields its bytes in parts of a size.
type parts struct {
	data []byte
	size int
}

func (p *parts) Read(b []byte) (int, error) {
	if len(p.data) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.data[:min(p.size, len(p.data))])
	p.data = p.data[n:]
	return n, nil
}

// FuzzScanner: no marker passes, in any encoding, however reads split it; bytes
// without one pass unchanged.
func FuzzScanner(f *testing.F) {
	for _, s := range []string{
		Marker, AliasMarker + "KEY", "a=" + Marker + "v1_KEY", "%6fpenshell%3Aresolve:env%3a", "%256fpenshell:resolve:env:",
		"%%36fpenshell:resolve:env:", "%2525256Fpenshell:resolve:env:", "openshell:resolopenshell:resolve:env:", "100%%%", "%4%31",
		"OPENSHELL%2DRESOLVE-ENV%252d", "openshell:resolve:env%3",
	} {
		f.Add([]byte(s), uint8(1))
		f.Add([]byte("text "+s+" text"), uint8(7))
	}
	f.Fuzz(func(t *testing.T, data []byte, size uint8) {
		if len(data) > stackDepth/2 {
			data = data[:stackDepth/2] // deeper nesting than the stack is not promised
		}
		checkAgainstDecoding(t, data, max(1, int(size)))
	})
}

// TestRandomMixesAgreeWithDecoding is the fuzz target on texts that are nearly
// markers, which random bytes never are.
func TestRandomMixesAgreeWithDecoding(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	pieces := []string{"%", "%2", "%25", "%%%", "%3A", "%22", "%2522", "6", "f", "%6", "o", "openshell", ":", "%3a", "%253A", "resolve", "env", "-", "%2D", "OPENSHELL", "RESOLVE", "ENV", "v", "penshell:resolve:env:", " ", "%%36f"}
	found := 0
	for range 200_000 {
		var b strings.Builder
		if rnd.IntN(2) == 0 {
			marker := []string{Marker, AliasMarker}[rnd.IntN(2)]
			b.WriteString(encode(marker, func(int) int { return rnd.IntN(40) / 36 }))
			s := []byte(b.String())
			if rnd.IntN(2) == 0 {
				s[rnd.IntN(len(s))] = "%o:2f6"[rnd.IntN(6)]
			}
			b.Reset()
			b.Write(s)
		} else {
			for range rnd.IntN(12) {
				b.WriteString(pieces[rnd.IntN(len(pieces))])
			}
		}
		s := b.String()
		if len(s) > stackDepth/2 {
			continue
		}
		decoded := decodedForm(s)
		want := strings.Contains(decoded, Marker) || strings.Contains(decoded, AliasMarker)
		if want {
			found++
		}
		var scan Scanner
		cut := rnd.IntN(len(s) + 1)
		scan.Feed([]byte(s[:cut]))
		if got := scan.Feed([]byte(s[cut:])); got != want {
			t.Fatalf("%q cut at %d: found is %v", s, cut, got)
		}
	}
	if found < 1000 {
		t.Errorf("only %d of the texts had a marker", found)
	}
}

// TestAMarkerIsFoundAtEveryPlace of a text that is searched in several places at once,
// among bytes of every kind; and a near miss at none.
func TestAMarkerIsFoundAtEveryPlace(t *testing.T) {
	for name, fill := range map[string]string{"nothing like it": "z", "its own characters": "v", "escapes": "%20", "escapes of its characters": "%3a", "signs": "%", "escaped signs": "%25", "digits": "2"} {
		for _, marker := range []string{Marker, AliasMarker, "openshell%3Aresolve:env%3a", "%256fpenshell:resolve:env:"} {
			for _, size := range []int{1 << 10, 1<<10 + 7} {
				text := strings.Repeat(fill, size/len(fill)+1)
				step := 7
				if fill == "z" {
					step = 1
				}
				for at := 0; at <= len(text); at += step {
					whole := text[:at] + marker + text[at:]
					near := whole[max(0, at-99):min(len(whole), at+99)] // what could change it
					if want := decodedForm(near); fed(whole) != (strings.Contains(want, Marker) || strings.Contains(want, AliasMarker)) {
						t.Fatalf("%s at %d of %d among %s: found is %v", marker, at, size, name, fed(whole))
					}
					if miss := text[:at] + Marker[:21] + "_" + text[at:]; fed(miss) {
						t.Fatalf("a near miss at %d of %d among %s is found", at, size, name)
					}
				}
			}
		}
	}
}

// fed is what a Scanner finds in one piece.
func fed(text string) bool {
	var s Scanner
	return s.Feed([]byte(text))
}

// TestManySignsHideNothing: of any number of percent signs enough are remembered.
func TestManySignsHideNothing(t *testing.T) {
	for _, n := range []int{2, 7, 8, 9, stackDepth - 1, stackDepth, 2*stackDepth - 1, 2 * stackDepth, 2*stackDepth + 1, 3 * stackDepth, block, 2*block + 5} {
		many := strings.Repeat("%", n)
		for _, tail := range []string{"6fpenshell:resolve:env:", "36fpenshell:resolve:env:", "%36%66penshell:resolve:env:", Marker, "25" + Marker} {
			for _, size := range []int{1, 100, 32 << 10, 1 << 20} {
				var s Scanner
				found := false
				for rest := "openshell:" + many + tail; rest != ""; rest = rest[min(size, len(rest)):] {
					found = s.Feed([]byte(rest[:min(size, len(rest))]))
				}
				if !found {
					t.Errorf("%d signs hide %q in parts of %d", n, tail, size)
				}
			}
		}
		if near := many + "x" + Marker[1:]; fed(near) {
			t.Errorf("a near miss behind %d signs is found", n)
		}
	}
}

// TestHeldBytesAreBounded: what may begin a marker is held back only so far, and the
// marker is still caught.
func TestHeldBytesAreBounded(t *testing.T) {
	endless := strings.Repeat("25", 1_000_000) // one escape that goes on and on
	r := NewReader(strings.NewReader("openshell:resolve:env%" + endless + "3aKEY"))
	p := make([]byte, 1000)
	passed := 0
	var err error
	for err == nil {
		var n int
		n, err = r.Read(p)
		passed += n
		if len(r.buf) > maxHeld+len(p) {
			t.Fatalf("%d bytes are held back", len(r.buf))
		}
	}
	if !errors.Is(err, ErrMarker) {
		t.Fatalf("the marker passed: %v", err)
	}
	if passed < len(endless)-2*maxHeld {
		t.Errorf("only %d bytes passed before it", passed)
	}
	if n, err := r.Read(p); n != 0 || !errors.Is(err, ErrMarker) {
		t.Fatalf("a read behind the marker: %d, %v", n, err)
	}
}

func TestWhatIsNoBeginningIsNotHeldBack(t *testing.T) {
	r, w := io.Pipe()
	defer w.Close()
	guarded := NewReader(r)
	p := make([]byte, 100)
	for _, part := range []struct{ written, read string }{
		{"data: hello\n\n", "data: hello\n\n"},
		{"100 %", "100 "},
		{"x openshell:", "%x "},
		{"resolve: it", "openshell:resolve: it"},
	} {
		go func() { _, _ = io.WriteString(w, part.written) }()
		n, err := guarded.Read(p)
		if got := string(p[:n]); err != nil || got != part.read {
			t.Errorf("behind %q: %q, %v; want %q", part.written, got, err, part.read)
		}
	}
}

func benchmark(b *testing.B, data []byte) {
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		var s Scanner
		for rest := data; len(rest) > 0; {
			n := min(32<<10, len(rest))
			if s.Feed(rest[:n]) {
				b.Fatal("found")
			}
			rest = rest[n:]
		}
	}
}

// BenchmarkScanner passes bodies without a marker in parts of 32 KiB.
func BenchmarkScanner(b *testing.B) {
	rnd := rand.New(rand.NewPCG(1, 2))
	random := make([]byte, 4<<20)
	for i := range random {
		random[i] = byte(rnd.Uint32())
	}
	json := bytes.Repeat([]byte(`{"model":"large","messages":[{"role":"user","content":"Every evening the observers resolve a vivid view of the valley, never 100% sure."}],"temperature":0.7},`), 30_000)
	base64 := []byte(strings.Repeat("QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9wcXJzdHV2d3h5ejAxMjM0NTY3ODkrLw", 50_000))
	form := []byte(strings.Repeat("name=J%C3%BCrgen+M%C3%BCller&note=a%20b%2Cc%3Dd&value=12345&", 60_000))
	encoded := []byte(strings.Repeat("%7B%22model%22%3A%22large%22%2C%22temperature%22%3A0.7%2C%22text%22%3A%22Every%20evening%20the%20observers%20resolve%22%7D&", 30_000))
	b.Run("encoded json", func(b *testing.B) { benchmark(b, encoded) })
	b.Run("twice encoded json", func(b *testing.B) { benchmark(b, bytes.ReplaceAll(encoded, []byte("%"), []byte("%25"))) })
	b.Run("escapes of marker characters", func(b *testing.B) { benchmark(b, bytes.Repeat([]byte("%6f%65"), 1<<18)) })
	b.Run("nearly markers", func(b *testing.B) { benchmark(b, bytes.Repeat([]byte("%6fpenshell:resolve:env;"), 1<<16)) })
	b.Run("nested escapes", func(b *testing.B) { benchmark(b, bytes.Repeat([]byte("%%36%66"), 1<<17)) })
	b.Run("json", func(b *testing.B) { benchmark(b, json) })
	b.Run("binary", func(b *testing.B) { benchmark(b, random) })
	b.Run("base64", func(b *testing.B) { benchmark(b, base64) })
	b.Run("form", func(b *testing.B) { benchmark(b, form) })
	b.Run("percent signs", func(b *testing.B) { benchmark(b, bytes.Repeat([]byte("%"), 1<<20)) })
	b.Run("rare letters", func(b *testing.B) { benchmark(b, bytes.Repeat([]byte("v"), 1<<20)) })
}
