package http2

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// slow is a client that takes its time for a write, unless that is broken off.
type slow struct {
	http.ResponseWriter
	takes  time.Duration
	broken chan struct{}
}

var errBroken = errors.New("broken off")

func (s slow) Write(p []byte) (int, error) {
	select {
	case <-time.After(s.takes):
		return len(p), nil
	case <-s.broken:
		return 0, errBroken
	}
}

func (s slow) SetWriteDeadline(time.Time) error {
	close(s.broken)
	return nil
}

// TestAWriteHasAMomentToEnd, and no more, when its call is revoked; what is no call has
// none.
func TestAWriteHasAMomentToEnd(t *testing.T) {
	for rule, c := range map[string]struct {
		interrupt func(*watch)
		takes     time.Duration
		lasts     time.Duration
		broken    bool
	}{
		"a call whose client takes it": {(*watch).hurry, lastMoment - 1, lastMoment - 1, false},
		"a call whose client does not": {(*watch).hurry, time.Hour, lastMoment, true},
		"another stream":               {(*watch).interrupt, lastMoment - 1, 0, true},
	} {
		t.Run(rule, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := slow{takes: c.takes, broken: make(chan struct{})}
				w := newWatch(http.NewResponseController(client), func(error) {}, 2*time.Hour, 2*time.Hour)
				defer w.end()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				began := time.Now()
				go func() {
					synctest.Wait() // until it is written
					cancel()
					c.interrupt(w)
				}()
				n, err := w.write(ctx, client, []byte("x"))
				if broken := err != nil; broken != c.broken || !broken && n != 1 || time.Since(began) != c.lasts {
					t.Errorf("behind %s: %d, %v", time.Since(began), n, err)
				}
				if _, err := w.write(ctx, client, []byte("x")); !errors.Is(err, context.Canceled) {
					t.Errorf("the next one: %v", err)
				}
				time.Sleep(2 * lastMoment) // what is to come has come: a deadline that is set once more panics
			})
		})
	}
}
