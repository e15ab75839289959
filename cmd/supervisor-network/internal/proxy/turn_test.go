package proxy

import (
	"context"
	"errors"
	"net"
	"testing"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/listen"
)

func TestATurnEndsWithItsConnectionOrAlone(t *testing.T) {
	why := errors.New("why")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	tcp, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	s := &session{conn: &listen.Conn{TCP: tcp.(*net.TCPConn)}}
	for name, c := range map[string]struct {
		before, after func(turn *turn, end context.CancelCauseFunc) // the first time that somebody waits
		err, cause    error
		hurt          bool
	}{
		"nothing happens":                      {},
		"the connection ends":                  {before: func(_ *turn, end context.CancelCauseFunc) { end(why) }, err: context.Canceled, cause: why},
		"the connection ends for one waiting":  {after: func(_ *turn, end context.CancelCauseFunc) { end(why) }, err: context.Canceled, cause: why},
		"it is cut":                            {before: func(turn *turn, _ context.CancelCauseFunc) { turn.cut(why) }, err: context.Canceled, cause: why, hurt: true},
		"it is cut for one waiting":            {after: func(turn *turn, _ context.CancelCauseFunc) { turn.cut(why) }, err: context.Canceled, cause: why, hurt: true},
		"it is cut twice":                      {after: func(turn *turn, _ context.CancelCauseFunc) { turn.cut(why); turn.cut(errGated) }, err: context.Canceled, cause: why, hurt: true},
		"it is cut behind what it belonged to": {after: func(turn *turn, _ context.CancelCauseFunc) { turn.leave(); turn.cut(why) }, err: context.Canceled, cause: why},
	} {
		ctx, end := context.WithCancelCause(context.Background())
		turn := &turn{Context: ctx, session: s}
		if c.before != nil {
			c.before(turn, end)
		}
		done := turn.Done()
		if c.after != nil {
			c.after(turn, end)
		}
		if err := turn.Err(); !errors.Is(err, c.err) || c.err == nil && err != nil {
			t.Errorf("%s: it ends with %v", name, err)
		}
		if cause := context.Cause(turn); !errors.Is(cause, c.cause) || c.cause == nil && cause != nil {
			t.Errorf("%s: its cause is %v", name, cause)
		}
		if c.err != nil {
			<-done
		}
		if hurt := turn.end(); hurt != c.hurt {
			t.Errorf("%s: hurt is %v", name, hurt)
		}
		<-done // whoever waits longer than it lasts
		if turn.cut(errGated); errors.Is(turn.cause, errGated) {
			t.Errorf("%s: it was cut when it was over", name)
		}
		end(nil)
	}
}

// ending is a connection's context that has ended, of which those below have yet to hear.
type ending struct{ context.Context }

func (ending) Done() <-chan struct{} { return nil }

// TestATurnKnowsWhyItsConnectionEnds: as soon as it says that it ends.
func TestATurnKnowsWhyItsConnectionEnds(t *testing.T) {
	ctx, end := context.WithCancelCause(t.Context())
	turn := &turn{Context: ending{ctx}}
	_ = turn.Done() // somebody waits already
	end(errRevoked)
	if turn.Err() == nil || !errors.Is(context.Cause(turn), errRevoked) {
		t.Errorf("it ended with %v, for %v", turn.Err(), context.Cause(turn))
	}
}
