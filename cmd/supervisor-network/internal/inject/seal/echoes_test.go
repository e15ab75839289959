package seal

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/credentials"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/secret"
)

// TestMessagesAreCleanedOfWhatWentIn: with the handshake, with messages, and of a key
// that changed meanwhile; of the newest values, up to a bound.
func TestMessagesAreCleanedOfWhatWentIn(t *testing.T) {
	echo := func(n int) credentials.Echo {
		return credentials.Echo{Value: secret.New(fmt.Sprintf("REALvalue%06d", n)), Placeholder: fmt.Sprintf("PH%d", n), Key: "KEY"}
	}
	s := &Sealed{values: []credentials.Echo{echo(0)}}
	v := &Vault{}
	s.filter = v.filter(nil, nil, s.values)
	e := EchoesOf(s)
	clean := e.Cleaner()
	say := func(n int) string { return string(clean([]byte(fmt.Sprintf("REALvalue%06d", n)), true, true)) }
	if got := say(0) + say(1); got != "PH0REALvalue000001" {
		t.Errorf("before a message: %s", got)
	}
	for n := 1; n < maxEchoes; n++ {
		e.Add([]credentials.Echo{echo(n)})
	}
	filter := e.filter.Load()
	e.Add([]credentials.Echo{echo(1), echo(2)})
	if e.filter.Load() != filter {
		t.Error("what is known is made again")
	}
	if got := say(0) + say(maxEchoes-1); got != fmt.Sprintf("PH0PH%d", maxEchoes-1) {
		t.Errorf("at the bound: %s", got)
	}
	e.Add([]credentials.Echo{echo(maxEchoes)})
	if got := say(0) + say(1) + say(maxEchoes); got != fmt.Sprintf("REALvalue000000PH1PH%d", maxEchoes) {
		t.Errorf("above the bound: %s", got)
	}
	if s.Echoed() != 5 || len(s.values) != 1 {
		t.Errorf("%d are counted; the request has %d", s.Echoed(), len(s.values))
	}
}

// TestARefusalRepeatsNoValue: the coding of an answer is a word of the origin's.
func TestARefusalRepeatsNoValue(t *testing.T) {
	s := Watch([]credentials.Echo{{Value: secret.New("realvalue01"), Placeholder: "PH", Key: "KEY"}})
	err := s.Clean(&http.Response{Header: http.Header{"Content-Type": {"text/plain"}, "Content-Encoding": {"realvalue01"}}, ContentLength: -1,
		Body: io.NopCloser(strings.NewReader("x")), Request: &http.Request{}})
	if err == nil || !strings.Contains(err.Error(), "in the coding ph") {
		t.Errorf("%v", err)
	}
}
