package app

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/launch"
	"github.com/splitpod/splitpod/pkg/core"
)

// handleSignals forwards signals to the workload. Before it runs, one that asks to
// end stops the start.
func (d *daemon) handleSignals(ctx context.Context, stopStart func()) {
	for {
		select {
		case <-ctx.Done():
			return
		case sig := <-d.signals:
			if s := sig.(syscall.Signal); d.early.keeps(s) {
				stopStart()
			}
		}
	}
}

// earlySignals are those that come before the workload can get them. The zero value is
// ready to use.
type earlySignals struct {
	mu   sync.Mutex
	send func(syscall.Signal) // guarded by mu; nil until the workload runs
	last syscall.Signal       // guarded by mu; that asked to end; 0: none
}

// keeps passes a signal on, or, before there is a workload, reports whether it asks to
// end.
func (e *earlySignals) keeps(sig syscall.Signal) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.send != nil {
		e.send(sig)
		return false
	}
	if ends(sig) {
		e.last = sig
	}
	return ends(sig)
}

// begin says that the workload runs. A signal to end that came too late to stop the
// start, which nobody sends twice, is its first.
func (e *earlySignals) begin(send func(syscall.Signal)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.send = send
	if e.last != 0 {
		send(e.last)
	}
}

// ends reports whether a signal asks to end.
func ends(sig syscall.Signal) bool {
	return sig == syscall.SIGTERM || sig == syscall.SIGINT || sig == syscall.SIGQUIT
}

// forward sends a signal to the workload. SIGTERM goes to every process of the
// sandbox, and like every signal that asks to end starts the grace time, after which
// they are killed.
func (d *daemon) forward(session *launch.Session, sig syscall.Signal) {
	if sig == syscall.SIGWINCH && d.console.Terminal() {
		d.resizeTerminal()
		return
	}
	send := session.Signal
	if sig == syscall.SIGTERM {
		send = d.sandbox.SignalAll
	}
	if err := send(sig); err != nil {
		d.log.Warn("a signal was not delivered", slog.String("signal", sig.String()), slog.Any("error", err))
	}
	if ends(sig) {
		d.ending.Do(func() {
			time.AfterFunc(d.cfg.Grace, func() { _ = d.sandbox.SignalAll(syscall.SIGKILL) })
		})
	}
}

// exitTimeout is the exit code of a workload that ran too long, as of timeout(1).
const exitTimeout = 124

// await waits for the workload's end; after --timeout it is ended like by SIGTERM.
func (d *daemon) await(ctx context.Context, session *launch.Session) (core.Exit, error) {
	var late atomic.Bool
	if d.cfg.Timeout > 0 {
		timer := time.AfterFunc(d.cfg.Timeout, func() {
			late.Store(true)
			d.forward(session, syscall.SIGTERM)
		})
		defer timer.Stop()
	}
	exit, err := session.Wait(ctx)
	if err != nil {
		return core.Exit{}, fmt.Errorf("the workload was lost: %w", err)
	}
	if late.Load() {
		d.log.Warn("the workload was ended after --timeout", slog.Duration("timeout", d.cfg.Timeout))
		exit.Code = exitTimeout
	}
	return exit, nil
}
