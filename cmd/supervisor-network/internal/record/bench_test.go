package record_test

import (
	"context"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/record"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/ocsf"
)

var (
	daemon = ocsf.Context{Build: core.Build{Component: "supervisor-network", Version: "0.1.0"}, Hostname: "pod-7", Instance: "0123456789abcdef0123456789abcdef"}
	who    = core.Identity{
		Process: core.ProcessRef{PID: 71, StartTime: 99}, UID: 1000,
		Program:   core.Program{Path: "/usr/local/bin/agent", SHA256: strings.Repeat("a", 64)},
		Ancestors: []core.Program{{Path: "/usr/bin/bash", SHA256: strings.Repeat("b", 64)}, {Path: "/usr/bin/tini", SHA256: strings.Repeat("c", 64)}},
	}
)

// allowed is what the pipeline does for one allowed request.
func allowed(r *record.Recorder, keep *atomic.Pointer[record.Entry]) {
	ev := r.Begin("0123456789abcdef", time.Now())
	keep.Store(ev) // as a session does
	ev.Event.Host, ev.Event.Port = "api.example.com", 443
	ev.Who(who)
	ev.Allow(core.StageRequest, "api", 3)
	ev.Event.Method, ev.Event.Path, ev.Event.Status, ev.Event.Address = "GET", "/v1/items/4711", 200, "192.0.2.7"
	ev.Event.BytesUp, ev.Event.BytesDn = 10, 20
	ev.End()
}

func running(b *testing.B) *record.Recorder {
	r := record.New(daemon, nil, record.Sink{Out: io.Discard})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = r.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		<-done
		if n := r.Stats().Dropped; n > 0 {
			b.Logf("%d of %d records dropped", n, r.Stats().Allowed+r.Stats().Denied)
		}
	})
	return r
}

// pause lets the writer catch up after every so many records, so that what is
// measured is written and not dropped.
const pause = 128

func BenchmarkAllowed(b *testing.B) {
	r := running(b)
	b.ReportAllocs()
	var keep atomic.Pointer[record.Entry]
	for n := 0; b.Loop(); n++ {
		allowed(r, &keep)
		if n%pause == 0 {
			r.Event(core.Event{}, true)
		}
	}
}

func BenchmarkAllowedParallel(b *testing.B) {
	r := running(b)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		var keep atomic.Pointer[record.Entry]
		for n := 0; pb.Next(); n++ {
			allowed(r, &keep)
			if n%pause == 0 {
				r.Event(core.Event{}, true)
			}
		}
	})
}

// BenchmarkDenied waits for the record of every denial, as the pipeline does.
func BenchmarkDenied(b *testing.B) {
	r := running(b)
	b.ReportAllocs()
	for b.Loop() {
		ev := r.Begin("0123456789abcdef", time.Now())
		ev.Event.Host, ev.Event.Port = "files.example.net", 443
		ev.Who(who)
		ev.Deny(core.StageConnect, core.ReasonPolicyDenied, "no matching policy")
		ev.End()
	}
}
