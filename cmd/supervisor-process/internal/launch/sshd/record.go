package sshd

import (
	"fmt"
	"sync"
	"time"

	"github.com/gliderlabs/ssh"
	gossh "golang.org/x/crypto/ssh"

	"github.com/splitpod/splitpod/pkg/core"
)

// Limits of what is recorded about clients that are refused again and again: what is
// above is counted, and said with the next record.
const (
	maxRefusals   = 32 // in refusalsEvery
	refusalsEvery = time.Minute
	maxName       = 64 // bytes of what a client calls something
)

// refusals bounds records. The zero value is ready to use.
type refusals struct {
	mu    sync.Mutex
	since time.Time // guarded by mu
	n     int       // guarded by mu; since then
	more  uint64    // guarded by mu; not recorded
}

// admit reports whether one more is recorded, and how many before it were not.
func (r *refusals) admit(now time.Time) (more uint64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.since) >= refusalsEvery {
		r.since, r.n = now, 0
	}
	if r.n >= maxRefusals {
		r.more++
		return 0, false
	}
	r.n++
	more, r.more = r.more, 0
	return more, true
}

// record tells what happened, if anybody is to know.
func (s *Server) record(reason core.Reason, format string, args ...any) {
	if s.cfg.Record != nil {
		s.cfg.Record(reason, fmt.Sprintf(format, args...))
	}
}

// refused is record for what clients can cause as often as they like. What only failed
// does not take the place of what was refused.
func (s *Server) refused(reason core.Reason, format string, args ...any) {
	bound := &s.refusals
	if reason == core.EventSSHFailed {
		bound = &s.failures
	}
	more, ok := bound.admit(time.Now())
	if !ok {
		return
	}
	detail := fmt.Sprintf(format, args...)
	if more > 0 {
		detail += fmt.Sprintf(" (and %d more before it)", more)
	}
	s.record(reason, "%s", detail)
}

func named(s string) string { return s[:min(len(s), maxName)] }

// attempted records an attempt to log in.
func (s *Server) attempted(c *connection, meta gossh.ConnMetadata, method string, err error) {
	switch {
	case err == nil && s.cfg.Authorized == nil:
		c.opened.Store(true)
		s.record(core.EventSSHOpened, "%s logged in; no key is asked for", named(meta.User()))
	case err == nil:
		c.opened.Store(true)
		s.record(core.EventSSHOpened, "%s logged in by %s", named(meta.User()), named(method))
	case method != "none": // by which clients ask what there is
		s.refused(core.EventSSHRefused, "%s did not log in by %s: %v", named(meta.User()), named(method), err)
	}
}

// ended records the end of a connection that was logged in.
func (s *Server) ended(c *connection, began time.Time) {
	if c.opened.Load() {
		s.record(core.EventSSHClosed, "after %s", time.Since(began).Round(time.Millisecond))
	}
}

// served says whether a request of a session is of a kind that is served.
func (s *Server) served(c ssh.Session, kind string) bool {
	if kind != "subsystem" || s.ssh.SubsystemHandlers[c.Subsystem()] != nil {
		return true
	}
	s.refused(core.EventSSHUnsupported, "subsystem %s", named(c.Subsystem()))
	return false
}

// unserved refuses a channel of a kind that is not served.
func (s *Server) unserved(_ *ssh.Server, _ *gossh.ServerConn, channel gossh.NewChannel, _ ssh.Context) {
	s.refused(core.EventSSHUnsupported, "channel %s", named(channel.ChannelType()))
	_ = channel.Reject(gossh.UnknownChannelType, "unsupported channel type")
}

// unlistened refuses to listen on behalf of a client.
func (s *Server) unlistened(_ ssh.Context, _ *ssh.Server, r *gossh.Request) (bool, []byte) {
	s.refused(core.EventSSHUnsupported, "request %s", named(r.Type))
	return false, nil
}
