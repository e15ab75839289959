package app

import (
	"context"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/app/inside"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/watch/fence"
	"github.com/splitpod/splitpod/pkg/core"
)

// watch reports what the fence and the filters of system calls refuse until the returned
// function is called, which reports what is left.
func (d *daemon) watch(ctx context.Context) (stop func()) {
	f := &d.fence
	f.Log.File, f.Query, f.Kill = d.sandbox.Files[inside.FileNFLog], d.queryFence, d.sandbox.Kill
	f.Identify = func(ctx context.Context, t core.Tuple) core.Identity { return d.resolver.Load().Identify(ctx, t) }
	f.End = func(t core.Tuple) error { return d.resolver.Load().End(t) }
	f.Report, f.Logger = d.report.Own, d.log
	stopCalls := d.watchCalls(ctx)
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.Run(ctx)
	}()
	return func() {
		stopCalls()
		cancel()
		<-done
	}
}

// queryFence asks init, which is where the fence is.
func (d *daemon) queryFence(ctx context.Context) (state fence.State, err error) {
	query := inside.QueryFence
	if d.fence.Held {
		query = inside.QueryHoldingFence
	}
	err = d.sandbox.Query(ctx, query, &state)
	return state, err
}
