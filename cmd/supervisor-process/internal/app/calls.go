package app

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/app/inside"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/watch/calls"
	"github.com/splitpod/splitpod/pkg/core"
)

// callsInterval is how long a refused system call waits for its record.
const callsInterval = time.Second

// watchCalls refuses the system calls that the sandbox's filters hold, and records them,
// until the returned function is called, which records what is left. From then on the
// kernel refuses them.
func (d *daemon) watchCalls(ctx context.Context) (stop func()) {
	f := d.sandbox.Files[inside.FileCalls]
	if f == nil {
		return func() {}
	}
	d.calls = calls.Listen(f)
	ctx, cancel := context.WithCancel(ctx)
	served, told := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(served)
		if err := d.calls.Serve(ctx); err != nil {
			d.log.Error("system calls that are refused are not recorded any more", slog.Any("error", err))
		}
	}()
	go func() { // by itself, because a record may wait for the log
		defer close(told)
		tick := time.NewTicker(callsInterval)
		defer tick.Stop()
		for {
			select {
			case <-served:
				d.calls.Report(time.Now(), true, d.refusedCall)
				return
			case <-tick.C:
				d.calls.Report(time.Now(), false, d.refusedCall)
			}
		}
	}()
	return func() {
		cancel()
		<-told
	}
}

func (d *daemon) refusedCall(r calls.Refusal) {
	who := "some program"
	if r.Program != "" {
		who = fmt.Sprintf("%s (pid %d)", r.Program, r.PID)
	}
	d.report.Own(core.Event{Kind: core.EventFinding, Stage: core.StageLaunch, Severity: core.SeverityMedium, Verdict: core.Deny, Reason: core.EventSyscallRefused,
		Detail:  fmt.Sprintf("%s called %s, which is not there in a sandbox, whatever the policy; %s", who, r.Call, r.Instead),
		Program: core.Program{Path: r.Program}, Process: core.ProcessRef{PID: r.PID}, UID: d.account.UID, Count: r.Count})
}
