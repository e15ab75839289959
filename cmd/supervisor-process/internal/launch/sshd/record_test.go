package sshd

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	gossh "golang.org/x/crypto/ssh"

	"github.com/splitpod/splitpod/pkg/core"
)

// told keeps what is recorded.
type told struct {
	mu    sync.Mutex
	cond  *sync.Cond
	lines []string // guarded by mu
}

func newTold() *told {
	o := &told{}
	o.cond = sync.NewCond(&o.mu)
	return o
}

func (o *told) record(reason core.Reason, detail string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if reason == core.EventSSHClosed {
		detail = "" // a duration
	}
	o.lines = append(o.lines, strings.TrimSpace(string(reason)+" "+detail))
	o.cond.Broadcast()
}

// wait waits until there are n records.
func (o *told) wait(n int) []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.lines) < n {
		o.cond.Wait()
	}
	return slices.Clone(o.lines)
}

func TestWhatClientsDoIsRecorded(t *testing.T) {
	o := newTold()
	s, _ := testServer(t, func(c *Config) { c.Record = o.record })
	c, wire, err := dial(s, "agent")
	if err != nil {
		t.Fatal(err)
	}
	to := func(host string, port uint32) {
		_, _, _ = c.OpenChannel("direct-tcpip", gossh.Marshal(struct {
			Host       string
			Port       uint32
			Origin     string
			OriginPort uint32
		}{host, port, "127.0.0.1", 1}))
	}
	to("10.0.0.9", 22)
	to("localhost", 0)
	to("localhost", 80)
	_, _, _ = c.OpenChannel("x11", nil)
	_, _, _ = c.SendRequest("tcpip-forward", true, nil)
	session, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	_ = session.RequestSubsystem("netconf" + strings.Repeat("x", 1000))
	c.Close()
	wire.Close()
	want := []string{
		"ssh_opened agent logged in; no key is asked for",
		"ssh_refused forwarding to 10.0.0.9, port 22, which is not the sandbox's loopback",
		"ssh_refused forwarding: the request cannot be read, or has no port",
		"ssh_failed forwarding to localhost, port 80: nobody listens",
		"ssh_unsupported channel x11",
		"ssh_unsupported request tcpip-forward",
		"ssh_unsupported subsystem netconf" + strings.Repeat("x", maxName-len("netconf")),
		"ssh_closed",
	}
	if d := cmp.Diff(want, o.wait(len(want))); d != "" {
		t.Error(d)
	}
}

func TestLoginsAreRecorded(t *testing.T) {
	good, bad := signer(t), signer(t)
	o := newTold()
	s, _ := testServer(t, func(c *Config) {
		c.Record = o.record
		c.Authorized = func() (*Authorized, error) { return ParseAuthorized([]byte(line(good))) }
	})
	if _, _, err := dial(s, "agent", gossh.PublicKeys(bad)); err == nil {
		t.Fatal("a key that is not authorised is accepted")
	}
	o.wait(2)
	c, wire, err := dial(s, "agent", gossh.PublicKeys(good))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	wire.Close()
	got := o.wait(4)
	for i, want := range []string{"ssh_refused agent did not log in by publickey: ", "ssh_failed nobody logged in: ", "ssh_opened agent logged in by publickey", "ssh_closed"} {
		if !strings.HasPrefix(got[i], want) {
			t.Errorf("record %d is %q, want %q", i+1, got[i], want)
		}
	}
}

// TestRefusalsWithoutEndAreFewRecords: at the limit, beyond it, and a minute later, when
// it is said how many there were.
func TestRefusalsWithoutEndAreFewRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newTold()
		s, _ := testServer(t, func(c *Config) { c.Record = o.record })
		for range maxRefusals {
			s.refused(core.EventSSHRefused, "x")
		}
		if n := len(o.wait(0)); n != maxRefusals {
			t.Errorf("%d records at the limit", n)
		}
		for range 100_000 {
			s.refused(core.EventSSHRefused, "x")
		}
		s.refused(core.EventSSHFailed, "y") // is another matter
		if got := o.wait(0); got[len(got)-1] != "ssh_failed y" {
			t.Errorf("the last is %q", got[len(got)-1])
		}
		time.Sleep(refusalsEvery - 1)
		s.refused(core.EventSSHRefused, "x")
		if n := len(o.wait(0)); n != maxRefusals+1 {
			t.Errorf("%d records beyond the limit", n)
		}
		time.Sleep(time.Nanosecond)
		s.refused(core.EventSSHRefused, "x")
		if got := o.wait(0); len(got) != maxRefusals+2 || got[maxRefusals+1] != "ssh_refused x (and 100001 more before it)" {
			t.Errorf("%d records, the last is %q", len(got), got[len(got)-1])
		}
	})
}
