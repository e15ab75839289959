package h2

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestInterimResponsesAreTold, in their order, before the answer is there. A leave to send
// the body is nobody's but net/http's.
func TestInterimResponsesAreTold(t *testing.T) {
	p, _ := pool(t, scripted(t, func(f *frames) {
		s := f.head()
		f.fields(s, false, ":status", "103", "link", "a", "content-length", "5")
		f.fields(s, false, ":status", "100")
		f.fields(s, false, ":status", "102")
		f.fields(s, false, ":status", "103", "link", "b")
		f.fields(s, true, ":status", "200")
	}), Config{})
	var told []string
	resp, err := p.RoundTripWhile(t.Context(), permit(t, host, 1), request(t, "GET", nil), nil, func(status int, h http.Header) error {
		told = append(told, fmt.Sprint(status, h))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if diff := cmp.Diff([]string{"103 map[Link:[a]]", "102 map[]", "103 map[Link:[b]]"}, told); diff != "" {
		t.Error(diff)
	}
}

// TestInterimResponsesThatAreToldAreBounded, each by itself and all together, and none
// switches protocols.
func TestInterimResponsesThatAreToldAreBounded(t *testing.T) {
	for name, c := range map[string]struct {
		n      int
		fields []string
		passes bool
	}{
		"as many as may be": {maxInterim, []string{":status", "103"}, true},
		"one more":          {maxInterim + 1, []string{":status", "103"}, false},
		"leaves to go on":   {1000, []string{":status", "100"}, false},
		"long together":     {maxInterim, []string{":status", "103", "link", strings.Repeat("x", 1024)}, false},
		"one is too long":   {1, []string{":status", "103", "link", strings.Repeat("x", maxResponseHead)}, false},
		"switches":          {1, []string{":status", "101"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			p, _ := pool(t, scripted(t, func(f *frames) {
				s := f.head()
				for range c.n {
					f.fields(s, false, c.fields...)
				}
				f.fields(s, true, ":status", "200")
			}), Config{})
			told := 0
			resp, err := p.RoundTripWhile(t.Context(), permit(t, host, 1), request(t, "GET", nil), nil, func(status int, _ http.Header) error {
				if told++; status == http.StatusSwitchingProtocols {
					t.Error("a switch is told")
				}
				return nil
			})
			if (err == nil) != c.passes || told > maxInterim || c.passes && told != c.n {
				t.Fatalf("%d told, %v", told, err)
			}
			if err == nil {
				resp.Body.Close()
			}
		})
	}
}

// TestWhoIsToldHoldsNobodyUp: other requests on the connection are answered while the
// client of one takes nothing; and who fails is told no more.
func TestWhoIsToldHoldsNobodyUp(t *testing.T) {
	p, _ := pool(t, scripted(t, func(f *frames) {
		s := f.head()
		f.fields(s, false, ":status", "103")
		f.fields(s, false, ":status", "103")
		f.fields(f.head(), true, ":status", "204")
		f.fields(s, true, ":status", "200")
	}), Config{MaxConns: 1})
	hears, release := make(chan bool), make(chan bool)
	var told atomic.Int32
	done := make(chan error)
	go func() {
		resp, err := p.RoundTripWhile(t.Context(), permit(t, host, 1), request(t, "GET", nil), nil, func(int, http.Header) error {
			told.Add(1)
			close(hears)
			<-release
			return errors.New("it is gone")
		})
		if err == nil {
			resp.Body.Close()
		}
		done <- err
	}()
	<-hears
	resp, err := p.RoundTrip(t.Context(), permit(t, host, 1), request(t, "GET", nil))
	if err != nil || resp.StatusCode != 204 {
		t.Fatal(resp, err)
	}
	resp.Body.Close()
	select {
	case err := <-done:
		t.Errorf("it is over while somebody is told: %v", err)
	default:
	}
	close(release)
	if err := <-done; err != nil || told.Load() != 1 {
		t.Errorf("%d told, %v", told.Load(), err)
	}
}
