package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/splitpod/splitpod/pkg/core"
)

// rebooting is a server that was reached once, and refuses since; listen brings it back.
// Each attempt asks for its name.
type rebooting struct {
	*Dialer
	to     destination
	listen func()
	asked  int
	answer func(question int) string // nil: always its address
}

func newRebooting(t *testing.T) *rebooting {
	t.Helper()
	held, port := shared(t, 0) // keeps the port while nobody listens
	t.Cleanup(func() { syscall.Close(held) })
	r := &rebooting{to: destination{host: "h.test", port: port}}
	r.Dialer, _ = testDialer(Config{Resolver: r})
	r.names.last = 0
	listen := func() (fd int) {
		fd, _ = shared(t, port)
		if err := syscall.Listen(fd, 8); err != nil {
			t.Error(err)
		}
		return fd
	}
	first := listen()
	c, err := r.dial(t.Context(), r.to)
	syscall.Close(first)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	r.listen = func() {
		second := listen()
		t.Cleanup(func() { syscall.Close(second) })
	}
	r.asked = 0
	return r
}

// shared is a socket on a port that others may have, too.
func shared(t *testing.T, port uint16) (int, uint16) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err == nil {
		err = syscall.Bind(fd, &syscall.SockaddrInet4{Port: int(port), Addr: [4]byte{127, 0, 0, 1}})
	}
	if err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fd, uint16(name.(*syscall.SockaddrInet4).Port)
}

func (r *rebooting) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	r.asked++
	if r.answer == nil {
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
	}
	return []netip.Addr{netip.MustParseAddr(r.answer(r.asked))}, nil
}

func TestDialTriesAgainWhatRestarts(t *testing.T) {
	r := newRebooting(t)
	r.restarts.time = time.Hour // however slow this machine is
	r.answer = func(question int) string {
		if question == 3 {
			r.listen()
		}
		return "127.0.0.1"
	}
	c, err := r.dial(t.Context(), r.to)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if r.asked != 3 {
		t.Errorf("%d attempts, want 3", r.asked)
	}
}

func TestDialJudgesAnewWhatRestarts(t *testing.T) {
	r := newRebooting(t)
	r.restarts.time = time.Hour
	r.answer = func(question int) string {
		if question == 2 {
			r.listen() // it would be taken
			return "127.0.0.66"
		}
		return "127.0.0.1"
	}
	_, err := r.dial(t.Context(), r.to)
	wantReason(t, err, core.ReasonSSRFDenied)
	if r.asked != 2 {
		t.Errorf("%d attempts, want 2", r.asked)
	}
}

func TestDialDoesNotWaitForWhatStaysDown(t *testing.T) {
	r := newRebooting(t)
	r.restarts.time = time.Millisecond
	_, err := r.dial(t.Context(), r.to)
	wantReason(t, err, core.ReasonUpstreamUnreachable)
	until(t, "its time is over", func() bool { return r.restarts.refused(place{r.to.host, r.to.port}) <= 0 })
	r.asked, r.restarts.time = 0, time.Millisecond
	_, err = r.dial(t.Context(), r.to)
	wantReason(t, err, core.ReasonUpstreamUnreachable)
	if r.asked != 1 {
		t.Errorf("%d attempts at what is down, want 1", r.asked)
	}
}

func TestDialDoesNotWaitForWhatWasNeverThere(t *testing.T) {
	d, a := testDialer(Config{}, []string{"127.0.0.1"})
	_, err := d.dial(t.Context(), destination{host: "h.test", port: closedPort(t)})
	wantReason(t, err, core.ReasonUpstreamUnreachable)
	if a.asked.Load() != 1 || len(d.restarts.known) != 0 {
		t.Errorf("%d attempts, %v is remembered", a.asked.Load(), d.restarts.known)
	}
}

// TestTheTimeOfARestartIsOneForAll: whoever comes later waits for what is left of it.
func TestTheTimeOfARestartIsOneForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, at := newRestarts(), place{"h.test", 443}
		far := time.Now().Add(time.Hour)
		try := func(end time.Time) (attempts int, took time.Duration) {
			began := time.Now()
			for r.again(t.Context(), at, refused, attempts, end) {
				attempts++
			}
			return attempts, time.Since(began)
		}
		for _, step := range []struct {
			name     string
			reached  bool
			after    time.Duration
			end      time.Time
			attempts int
			took     time.Duration
		}{
			{"never reached", false, 0, far, 0, 0},
			{"reached", true, 0, far, 5, restartTime}, // after 20, 60, 140, 300, 500 ms
			{"at once behind it", false, 0, far, 0, 0},
			{"an hour later", false, time.Hour, far.Add(2 * time.Hour), 0, 0},
			{"reached again", true, 0, time.Now().Add(time.Hour + restartTime + 30*time.Millisecond), 2, 30 * time.Millisecond},
			{"another one, later", false, 100 * time.Millisecond, far.Add(2 * time.Hour), 5, restartTime - 130*time.Millisecond},
		} {
			if step.reached {
				r.reached(at)
			}
			time.Sleep(step.after) // of the bubble's time
			if attempts, took := try(step.end); attempts != step.attempts || took != step.took {
				t.Errorf("%s: %d more attempts in %v, want %d in %v", step.name, attempts, took, step.attempts, step.took)
			}
		}
	})
}

var refused error = &Error{Reason: core.ReasonUpstreamUnreachable, Err: &net.OpError{Err: syscall.ECONNREFUSED}}

func TestOnlyRefusalsAreTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		over, cancel := context.WithCancel(t.Context())
		cancel()
		for name, tc := range map[string]struct {
			ctx  context.Context
			err  error
			want bool
		}{
			"a refusal":                    {t.Context(), refused, true},
			"one of two addresses":         {t.Context(), errors.Join(syscall.ENETUNREACH, refused), true},
			"a reset":                      {t.Context(), syscall.ECONNRESET, true},
			"a refusal, and nobody waits":  {over, refused, false},
			"no way there":                 {t.Context(), syscall.EHOSTUNREACH, false},
			"too late":                     {t.Context(), &Error{Reason: core.ReasonUpstreamTimeout, Err: context.DeadlineExceeded}, false},
			"an address that is forbidden": {t.Context(), &Error{Reason: core.ReasonSSRFDenied}, false},
		} {
			r, at := newRestarts(), place{"h.test", 443}
			r.reached(at)
			if got := r.again(tc.ctx, at, tc.err, 0, time.Now().Add(time.Minute)); got != tc.want {
				t.Errorf("%s: %v, want %v", name, got, tc.want)
			}
		}
	})
}

func TestRestartsRememberABoundedNumberOfDestinations(t *testing.T) {
	r := newRestarts()
	for i := range maxRestarts {
		r.reached(place{fmt.Sprint(i), 443})
	}
	r.reached(place{"0", 443})
	if len(r.known) != maxRestarts {
		t.Fatalf("%d are remembered, want %d", len(r.known), maxRestarts)
	}
	r.reached(place{"one more", 443})
	if len(r.known) != 1 {
		t.Errorf("%d are remembered behind one more, want 1", len(r.known))
	}
}
