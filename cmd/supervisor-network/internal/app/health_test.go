package app

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/splitpod/splitpod/api/supervisor/link"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/config"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/control"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/hold"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/observe"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/policyfile"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/outbox"
)

// failing names the readiness checks that do not hold.
func (d *daemon) failing() string {
	var out []string
	for _, c := range d.checks() {
		if !c.OK {
			out = append(out, c.Name)
		}
	}
	return strings.Join(out, " ")
}

// TestReadinessTurnsFalseWhenItStopsBeingTrue takes a daemon through everything that
// readiness is about, there and back.
func TestReadinessTurnsFalseWhenItStopsBeingTrue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &daemon{
			cfg:    &config.Config{StateDir: t.TempDir(), Identity: "process", InvalidPolicy: "deny", RecordFormat: "ocsf", ProxyPort: 3128},
			engine: &decide.Engine{}, meter: observe.NewMeter(), log: slog.New(slog.DiscardHandler), box: outbox.New(0), instance: core.NewInstanceID(), state: roomOf(t.TempDir()),
		}
		if err := d.openRecords(io.Discard); err != nil {
			t.Fatal(err)
		}
		if err := d.openCA(); err != nil {
			t.Fatal(err)
		}
		var err error
		if d.advisor, err = d.openAdvisor(); err != nil {
			t.Fatal(err)
		}
		d.policies = d.newPolicies()
		run := t.TempDir()
		d.hub = control.New(control.Options{RunDir: run, Handler: d, Outbox: d.box, Log: d.log})
		socket, err := d.hub.Listen()
		if err != nil {
			t.Fatal(err)
		}
		defer socket.Close()
		file := filepath.Join(t.TempDir(), "policy.yaml")
		load := func(text string) {
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			_ = d.policies.load(t.Context(), policyfile.Read(file)) // what an invalid one does is what is tested
		}
		peer, detach := context.WithCancel(context.Background())
		peerOf := core.Peer{Instance: core.NewInstanceID(), Build: core.Build{Component: "supervisor-process"}}

		steps := []struct {
			name string
			do   func()
			want string
		}{
			{"nothing is there yet", func() {}, "policy process_daemon listeners"},
			{"a policy", func() { load("version: 1\n") }, "process_daemon listeners"},
			{"a process daemon", func() { d.Attached(peer, peerOf) }, "listeners"},
			{"its listeners", func() { d.startServing(peer, peerOf.Instance) }, ""},
			{"nothing can be accepted", func() { d.attach.failed(peer, syscall.EINVAL) }, "listeners"},
			{"the listeners anew", func() { d.startServing(peer, peerOf.Instance) }, ""},
			{"an invalid policy, which denies", func() { load("version: 2\n") }, "policy"},
			{"a valid one again", func() { load("version: 1\n") }, ""},
			{"the process daemon goes", func() { detach(); d.Detached(peerOf) }, "process_daemon listeners"},
			{"no other one can come", func() { _ = os.Remove(filepath.Join(run, link.NetworkSocket)) }, "process_daemon sockets listeners"},
		}
		for _, s := range steps {
			s.do()
			if got := d.failing(); got != s.want {
				t.Errorf("%s: what fails is %q, want %q", s.name, got, s.want)
			}
		}
	})
}

// TestWhatBodiesAndWindowsTakeIsMeasured, with what was refused for them.
func TestWhatBodiesAndWindowsTakeIsMeasured(t *testing.T) {
	d := viewed(t)
	d.bodies, d.answers, d.windows.Limit = hold.New(2000), hold.New(3000), 100_000
	if !d.bodies.Take(1500) || d.bodies.Take(501) || !d.answers.Take(2500) || !d.windows.Enter() || d.windows.Enter() {
		t.Fatal("the limits are others")
	}
	said := local(d, "/metrics").Body.String()
	for _, line := range []string{
		"splitpod_bodies_held_bytes 1500", "splitpod_bodies_limit_bytes 2000", "splitpod_bodies_refused_total 1",
		"splitpod_answers_unread_bytes 2500", "splitpod_answers_limit_bytes 3000", "splitpod_answers_ended_total 0",
		"splitpod_http2_windows_bytes 65535", "splitpod_http2_unoffered_total 1",
	} {
		if !strings.Contains(said, line+"\n") {
			t.Errorf("not said: %s", line)
		}
	}
}
