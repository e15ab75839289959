package hold

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect"
	"github.com/splitpod/splitpod/pkg/core"
)

// TestABodyIsHeldAsItComes: at the limit it is read, above it is not, and a length that
// is only stated takes no room.
func TestABodyIsHeldAsItComes(t *testing.T) {
	const size = 3 * firstPiece
	body := strings.Repeat("x", size)
	for name, tc := range map[string]struct {
		room, length int64
		limit        int
		want         string
	}{
		"of known length, with room":       {size + 1, size, size, ""},
		"of known length, one byte less":   {size, size, size, string(ErrCrowded.Reason)},
		"of unknown length, with room":     {size + 1, -1, size, ""},
		"of unknown length, one byte less": {size, -1, size, string(ErrCrowded.Reason)},
		"above what may be read":           {1 << 20, -1, size - 1, "body_too_large"},
		"above by its own word":            {1 << 20, size, size - 1, "body_too_large"},
	} {
		h := &Holding{Of: New(tc.room)}
		got, err := h.Read(strings.NewReader(body), tc.length, tc.limit)
		if tc.want == "" && (err != nil || string(got) != body) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		if tc.want != "" && (err == nil || string(reasonOf(err)) != tc.want) {
			t.Errorf("%s: %v", name, err)
		}
		if crowded := tc.want == string(ErrCrowded.Reason); crowded != (h.Of.refused.Load() == 1) {
			t.Errorf("%s: %d requests found no room", name, h.Of.refused.Load())
		}
		if h.Of.held.Load() != h.n || h.n > tc.room {
			t.Errorf("%s: %d bytes are held, of %d", name, h.Of.held.Load(), h.n)
		}
		if h.Release(); h.Of.held.Load() != 0 {
			t.Errorf("%s: %d bytes stay", name, h.Of.held.Load())
		}
	}
	h := &Holding{Of: New(1 << 20)}
	if _, err := h.Read(iotestError{}, 1<<19, 1<<19); err == nil || h.n != firstPiece {
		t.Errorf("a stated length takes %d bytes: %v", h.n, err)
	}
}

// reasonOf is why a body was not read.
func reasonOf(err error) core.Reason {
	if e, ok := errors.AsType[*inspect.Error](err); ok {
		return e.Reason
	}
	if e, ok := errors.AsType[*http1.SyntaxError](err); ok {
		return e.Reason
	}
	return ""
}

type iotestError struct{}

func (iotestError) Read([]byte) (int, error) { return 0, errors.New("nothing comes") }

// TestOneHoldingForTheBodyAndWhatItSays: what stays of a body until its request is over
// is held, too.
func TestOneHoldingForTheBodyAndWhatItSays(t *testing.T) {
	var body strings.Builder
	body.WriteString(`{"jsonrpc":"2.0","id":1,"method":"x","params":{`)
	for i := range 1000 {
		fmt.Fprintf(&body, `"%d":"",`, i)
	}
	body.WriteString(`"x":""}}`)
	r := decide.Request{}
	e := decide.Endpoint{Protocol: "json-rpc", MaxBody: 1 << 20}
	head := inspect.Head{Method: "POST", Fields: http1.Fields{{Name: "Content-Type", Value: "application/json"}}, Body: true}
	if err := inspect.Fill(e, head, []byte(body.String()), &r); err != nil {
		t.Fatal(err)
	}
	h := &Holding{Of: New(1 << 20)}
	if !h.Weigh([]byte(body.String()), &r) || h.n < 100*1000 {
		t.Errorf("%d bytes are held for %d", h.n, body.Len())
	}
	h = &Holding{Of: New(int64(body.Len()))}
	if h.Weigh([]byte(body.String()), &r) {
		t.Error("what it says takes no room")
	}
}
