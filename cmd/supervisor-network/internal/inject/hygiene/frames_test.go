package hygiene

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/protobuf/proto"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/credentials"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/secret"
	"github.com/splitpod/splitpod/pkg/core"
)

const real = "REALvalue12345"

// small looks for real in heads, and in the first MaxSmall bytes of bodies.
func small() *Filter {
	return New([]credentials.Echo{{Value: secret.New(real), Placeholder: "PH", Key: "KEY"}})
}

// framed is a message of gRPC behind its prefix.
func framed(flags byte, message string) string {
	return string(binary.BigEndian.AppendUint32([]byte{flags}, uint32(len(message)))) + message
}

var calls = http1.Fields{{Name: "Content-Type", Value: "application/grpc"}}

// TestMessagesOfGRPCAreCleaned, each by itself, in pieces of every size; what is no
// value stays, and so do all lengths.
func TestMessagesOfGRPCAreCleaned(t *testing.T) {
	stars, far := strings.Repeat("*", len(real)), strings.Repeat("x", MaxSmall-len(real))
	for name, tc := range map[string]struct{ in, want string }{
		"a message":                 {framed(0, "a "+real+" b"), framed(0, "a "+stars+" b")},
		"two":                       {framed(0, real) + framed(0, real+real), framed(0, stars) + framed(0, stars+stars)},
		"an empty one":              {framed(0, "") + framed(0, real), framed(0, "") + framed(0, stars)},
		"an empty one, compressed":  {framed(1, "") + framed(0, real), framed(1, "") + framed(0, stars)},
		"trailers of the web":       {framed(0, "x") + framed(0x80, "grpc-message: "+real), framed(0, "x") + framed(0x80, "grpc-message: "+stars)},
		"a value over two":          {framed(0, real[:7]) + framed(0, real[7:]), framed(0, real[:7]) + framed(0, real[7:])},
		"a length that is its part": {framed(0, strings.Repeat("x", 'R')) + framed(0, real[1:]), framed(0, strings.Repeat("x", 'R')) + framed(0, real[1:])},
		"at the limit":              {framed(0, far+real+real) + framed(0, real), framed(0, far+stars+real) + framed(0, stars)},
		"cut in a message":          {framed(0, "a "+real)[:9], framed(0, "a "+real)[:9]},
		"cut in a prefix":           {framed(0, real) + "\x00\x00", framed(0, stars) + "\x00\x00"},
	} {
		for _, size := range []int{1, 2, 5, 6, 100, 1 << 20} {
			r := small().NewReader(calls, iotest.DataErrReader(&limitedReads{tc.in, size}))
			got, err := io.ReadAll(r)
			if err != nil || string(got) != tc.want || r.Count() != strings.Count(tc.want, stars) {
				t.Errorf("%s, in pieces of %d: %d found, %v, %.300q", name, size, r.Count(), err, got)
			}
		}
	}
}

// TestACoveredMessageIsStillOne for who knows its type.
func TestACoveredMessageIsStillOne(t *testing.T) {
	data, err := proto.Marshal(&grpc_testing.SimpleResponse{Username: "Bearer " + real, OauthScope: "all", Payload: &grpc_testing.Payload{Body: []byte(real)}})
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(small().NewReader(calls, strings.NewReader(framed(0, string(data)))))
	got := &grpc_testing.SimpleResponse{}
	if err == nil {
		err = proto.Unmarshal(out[prefixBytes:], got)
	}
	stars := strings.Repeat("*", len(real))
	if err != nil || got.Username != "Bearer "+stars || string(got.Payload.Body) != stars || got.OauthScope != "all" {
		t.Errorf("%v, %v", got, err)
	}
}

// TestWhatCannotBeReadOfGRPCIsRefused, with nothing of it, behind what was read.
func TestWhatCannotBeReadOfGRPCIsRefused(t *testing.T) {
	for name, flags := range map[string]byte{"compressed": 1, "compressed trailers": 0x81, "flags nobody knows": 2, "and others": 0x40} {
		for _, size := range []int{1, 100} {
			got, err := io.ReadAll(small().NewReader(calls, &limitedReads{framed(0, "fine") + framed(flags, real), size}))
			e, ok := errors.AsType[*http1.SyntaxError](err)
			if string(got) != framed(0, "fine") || !ok || e.Status != 502 || e.Reason != core.ReasonUninspectedResponse {
				t.Errorf("%s: %q, %v", name, got, err)
			}
		}
	}
}

// TestAMessageOfGRPCIsNotHeldBack, whatever it ends with: its sender waits for the answer.
func TestAMessageOfGRPCIsNotHeldBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // who waits for ever is found at once
		r, w := io.Pipe()
		defer w.Close()
		c := small().NewReader(calls, r)
		for _, message := range []string{"a " + real[:10], "b", real[:1]} {
			go func() { _, _ = io.WriteString(w, framed(0, message)) }()
			buf := make([]byte, prefixBytes+len(message))
			if _, err := io.ReadFull(c, buf); err != nil || string(buf) != framed(0, message) {
				t.Fatalf("%q, %v", buf, err)
			}
		}
	})
}

// TestBinariesPassWithoutWaiting: what no random bytes begin with is held back, and of
// less nothing; a value is covered from its fourth byte on wherever it is split.
func TestBinariesPassWithoutWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // who waits for ever is found at once
		fields := http1.Fields{{Name: "Content-Type", Value: "application/octet-stream"}}
		r, w := io.Pipe()
		defer w.Close()
		c := small().NewReader(fields, r)
		for _, step := range [][2]string{{"x R", "x R"}, {"RE", "RE"}, {"REA", "REA"}, {"L", ""}, {"value1234", ""}, {"5RE", strings.Repeat("*", len(real)-3) + "RE"}, {"ALvalue12345.", strings.Repeat("*", len(real)-2) + "."}, {"REAL", ""}, {"x", "REALx"}} {
			if step[1] == "" {
				_, _ = c.w.Write([]byte(step[0])) // what a Read would wait with
				if c.ready.Len() > 0 {
					t.Errorf("behind %q passes %q", step[0], c.ready.String())
				}
				continue
			}
			go func() { _, _ = io.WriteString(w, step[0]) }()
			buf := make([]byte, len(step[1]))
			if _, err := io.ReadFull(c, buf); err != nil || string(buf) != step[1] {
				t.Fatalf("behind %q: %q, %v, want %q", step[0], buf, err, step[1])
			}
		}
	})
}

// TestBinariesKeepTheirLength in pieces of every size.
func TestBinariesKeepTheirLength(t *testing.T) {
	text := "\x00" + real + "R" + real + "REA" + real + "REAL" + real[:12]
	for size := 1; size <= len(text); size++ {
		c := small().NewReader(nil, iotest.DataErrReader(&limitedReads{text, size}))
		got, err := io.ReadAll(c)
		if err != nil || len(got) != len(text) || strings.Contains(string(got), real[3:]) || c.Count() != 3 || !strings.HasSuffix(string(got), "REAL"+real[:12]) {
			t.Errorf("in pieces of %d: %q, %d, %v", size, got, c.Count(), err)
		}
	}
}

// FuzzFrames: whatever comes, and however it is split, no length changes, nothing is
// added or dropped, and no message that can be read says a value.
func FuzzFrames(f *testing.F) {
	f.Add([]byte(framed(0, "a "+real)+framed(0, "")+framed(0, real[:9])), uint8(3))
	f.Add([]byte(framed(0x80, real)+"\x00\x00"), uint8(1))
	f.Add([]byte(framed(0, "x")+framed(1, real)), uint8(7))
	f.Add([]byte(framed(0, strings.Repeat(real[:13], 3)+real)), uint8(200))
	f.Fuzz(func(t *testing.T, data []byte, size uint8) {
		got, err := io.ReadAll(small().NewReader(calls, &limitedReads{string(data), max(1, int(size))}))
		if err == nil && len(got) != len(data) || len(got) > len(data) {
			t.Fatalf("%d bytes became %d, %v", len(data), len(got), err)
		}
		for i := range got {
			if got[i] != data[i] && got[i] != '*' {
				t.Fatalf("byte %d of %q became %q", i, data, got)
			}
		}
		for rest := got; len(rest) >= prefixBytes; {
			n := int(binary.BigEndian.Uint32(rest[1:]))
			rest = rest[prefixBytes:]
			if message := rest[:min(n, len(rest), MaxSmall)]; bytes.Contains(message, []byte(real)) {
				t.Fatalf("%q passed as %q", data, got)
			}
			rest = rest[min(n, len(rest)):]
		}
	})
}
