package control

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	pb "github.com/splitpod/splitpod/api/supervisor/v1"
	"github.com/splitpod/splitpod/pkg/core"
)

// TestAQuestionWaitsForTheStream: a connection that is accepted before the question can
// be asked is not refused for it, and waits no longer than it may.
func TestAQuestionWaitsForTheStream(t *testing.T) {
	for name, tc := range map[string]struct {
		then func(*asks) // after a second
		want core.IdentityStatus
		took time.Duration
	}{
		"a stream that opens":     {func(a *asks) { a.open(); go answerAll(a) }, core.IdentityKnown, time.Second},
		"one that breaks at once": {func(a *asks) { a.open(); a.close() }, core.IdentityNotReady, time.Second},
		"none in time":            {func(*asks) {}, core.IdentityNotReady, identifyTimeout},
		"a daemon that is gone":   {(*asks).end, core.IdentityNotReady, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, start := newAsks(), time.Now()
				time.AfterFunc(time.Second, func() { tc.then(a) })
				ctx, cancel := context.WithTimeout(t.Context(), identifyTimeout)
				defer cancel()
				who := a.ask(ctx, &pb.IdentifyRequest{})
				if who.Status != tc.want && !(name == "one that breaks at once" && who.Status == core.IdentityFailed) {
					t.Errorf("status %v, want %v", who.Status, tc.want)
				}
				if took := time.Since(start); took != tc.took {
					t.Errorf("it took %s, want %s", took, tc.took)
				}
			})
		})
	}
}

// answerAll answers one question.
func answerAll(a *asks) {
	req := <-a.queue
	a.answer(req.Id, core.Identity{Status: core.IdentityKnown})
}

// TestAQuestionEndsWithItsStream, also one for which the queue had no room.
func TestAQuestionEndsWithItsStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAsks()
		a.open()
		for range cap(a.queue) {
			a.queue <- &pb.IdentifyRequest{}
		}
		time.AfterFunc(time.Second, a.close)
		ctx, cancel := context.WithTimeout(t.Context(), identifyTimeout)
		defer cancel()
		start := time.Now()
		if who := a.ask(ctx, &pb.IdentifyRequest{}); who.Status != core.IdentityFailed {
			t.Errorf("status %v", who.Status)
		}
		if took := time.Since(start); took != time.Second {
			t.Errorf("it took %s", took)
		}
	})
}

// broken is a stream that breaks while a question is written to it.
type broken struct {
	grpc.BidiStreamingClient[pb.IdentifyRequest, pb.IdentifyResponse]
	breaks, writes chan struct{}
}

func (b *broken) Recv() (*pb.IdentifyResponse, error) {
	<-b.breaks
	return nil, io.EOF
}

func (b *broken) Send(*pb.IdentifyRequest) error {
	<-b.writes
	return nil
}

// TestAStreamThatBrokeTakesNoQuestionOfTheNext.
func TestAStreamThatBrokeTakesNoQuestionOfTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newAsks(), &broken{breaks: make(chan struct{}), writes: make(chan struct{})}
		served := make(chan error, 1)
		go func() { served <- a.serve(t.Context(), b) }()
		go a.ask(t.Context(), &pb.IdentifyRequest{})
		synctest.Wait()
		close(b.breaks)
		synctest.Wait()
		if len(served) > 0 {
			t.Error("who writes to it goes on")
		}
		close(b.writes)
		synctest.Wait()
		<-served
	})
}
