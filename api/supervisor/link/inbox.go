package link

import (
	"fmt"
	"slices"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/splitpod/splitpod/api/supervisor/v1"
	"github.com/splitpod/splitpod/pkg/core"
)

// eventReceiver is the server half of a ReportEvents stream of either service.
type eventReceiver interface {
	Recv() (*pb.EventBatch, error)
	Send(*pb.EventAck) error
}

// Inbox remembers which events of each producer were taken, so that what is sent
// again is not counted twice: after a reconnect, and, if it was made with OpenInbox,
// after a restart of its own daemon. The zero value is ready to use and forgets with
// its daemon. It remembers the newest 16 producers. Safe for concurrent use.
type Inbox struct {
	ledger *ledger // nil: nothing is kept
	unsure uint64

	taking sync.Mutex // one batch after the other
	marks  []mark     // guarded by taking; oldest producer first
	closed bool       // guarded by taking
}

// mark is how far a producer's events were taken.
type mark struct {
	from core.InstanceID
	// begun is the newest number that was handed over, done the newest of which that
	// is known to have ended.
	begun, done uint64
}

// maxProducers bounds an Inbox: restarts of the peer that it can tell apart.
const maxProducers = 16

// OpenInbox makes an Inbox that notes in a file what it takes, and goes on where an
// earlier instance of this daemon stopped. failed is told when a note cannot be
// written: events are taken all the same, and may be counted twice after a kill. A file
// that is there and cannot be read is an error.
func OpenInbox(path string, failed func(error)) (*Inbox, error) {
	l, marks, err := openLedger(path, failed)
	if err != nil {
		return nil, fmt.Errorf("open the ledger of events: %w", err)
	}
	in := &Inbox{ledger: l, marks: marks}
	for i := range in.marks {
		m := &in.marks[i]
		in.unsure += m.begun - m.done
		m.done = m.begun
	}
	return in, nil
}

// Unsure is how many events an earlier instance was taking when it was killed, at most
// one batch of each producer. Whether it recorded them is not known; they are not taken
// again. Their producer has recorded them itself.
func (in *Inbox) Unsure() uint64 { return in.unsure }

// Receive takes the events of one stream: it calls take with the new ones of each
// batch, in order, and acknowledges the batch after that. It ends with the stream;
// malformed batches end it with InvalidArgument.
func (in *Inbox) Receive(stream eventReceiver, take func([]core.Event)) error {
	for {
		batch, err := stream.Recv()
		if err != nil {
			return err
		}
		from := core.InstanceID(batch.GetInstanceId())
		if !from.Valid() || len(batch.GetEvents()) > maxBatch {
			return status.Errorf(codes.InvalidArgument, "event batch of %d events from %q: needs a valid instance and at most %d events",
				len(batch.GetEvents()), clipText(batch.GetInstanceId()), maxBatch)
		}
		if !in.take(from, batch.GetEvents(), take) {
			return status.Error(codes.Unavailable, "events are not taken any more")
		}
		last := uint64(0)
		if n := len(batch.GetEvents()); n > 0 {
			last = batch.GetEvents()[n-1].GetSequence()
		}
		if err := stream.Send(&pb.EventAck{Sequence: last}); err != nil {
			return err
		}
	}
}

// take hands the new events of a batch over. They are noted first: a kill in between
// costs them, and never counts them twice. False: the Inbox is closed.
func (in *Inbox) take(from core.InstanceID, batch []*pb.Event, take func([]core.Event)) bool {
	in.taking.Lock()
	defer in.taking.Unlock()
	if in.closed {
		return false
	}
	m := in.of(from)
	var fresh []core.Event
	for _, e := range batch {
		if seq := e.GetSequence(); seq > m.begun {
			fresh = append(fresh, eventFromProto(from, e))
			m.begun = seq
		}
	}
	if len(fresh) == 0 {
		return true
	}
	in.ledger.note(in.marks)
	take(fresh)
	m.done = m.begun
	in.ledger.note(in.marks)
	return true
}

// Close waits for the batch that is being taken and lets no further one be; what was
// not acknowledged is for the next instance.
func (in *Inbox) Close() {
	in.taking.Lock()
	defer in.taking.Unlock()
	in.closed = true
}

// Release closes the Inbox and lets the next instance start. It is for what a daemon
// does last: until then the directory of the file is this daemon's alone.
func (in *Inbox) Release() {
	in.Close()
	if in.ledger != nil {
		in.ledger.file.Close()
	}
}

// of is the mark of a producer. Preconditions: taking is held.
func (in *Inbox) of(from core.InstanceID) *mark {
	i := slices.IndexFunc(in.marks, func(m mark) bool { return m.from == from })
	if i < 0 {
		if len(in.marks) == maxProducers {
			in.marks = slices.Delete(in.marks, 0, 1)
		}
		in.marks = append(in.marks, mark{from: from})
		i = len(in.marks) - 1
	}
	return &in.marks[i]
}

func clipText(s string) string { return s[:min(len(s), 64)] }
