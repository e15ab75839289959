package link

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/splitpod/splitpod/api/supervisor/v1"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/outbox"
)

// maxBatch is how many events one message carries.
const maxBatch = 256

// eventSender is the client half of a ReportEvents stream of either service.
type eventSender interface {
	Send(*pb.EventBatch) error
	Recv() (*pb.EventAck, error)
	CloseSend() error
}

// SendEvents delivers an outbox over one ReportEvents stream until ctx ends or the
// stream fails. Everything that is not acknowledged is sent again first. A peer
// that does not acknowledge a batch stops the flow: the next batch waits.
func SendEvents(ctx context.Context, stream eventSender, own core.InstanceID, box *outbox.Outbox) error {
	acked := uint64(0)
	for {
		batch := box.Pending(acked, maxBatch)
		if len(batch) == 0 {
			select {
			case <-ctx.Done():
				return errors.Join(ctx.Err(), stream.CloseSend())
			case <-box.Changed():
				continue
			}
		}
		msg := &pb.EventBatch{InstanceId: string(own), UndetailedTotal: box.Stats().Undetailed}
		for i := range batch {
			msg.Events = append(msg.Events, eventToProto(batch[i].Sequence, &batch[i].Event))
		}
		if err := stream.Send(msg); err != nil {
			return fmt.Errorf("send events: %w", err)
		}
		last := batch[len(batch)-1].Sequence
		for acked < last {
			ack, err := stream.Recv()
			if err != nil {
				return fmt.Errorf("wait for the acknowledgement of events: %w", err)
			}
			acked = max(acked, min(ack.GetSequence(), last))
		}
		box.Ack(acked)
	}
}

// eventReceiver is the server half of a ReportEvents stream of either service.
type eventReceiver interface {
	Recv() (*pb.EventBatch, error)
	Send(*pb.EventAck) error
}

// Inbox remembers which events of each producer were taken, so that what is sent
// again after a reconnect is not counted twice. The zero value is ready to use;
// it remembers the newest 16 producers. Safe for concurrent use.
type Inbox struct {
	mu   sync.Mutex
	seen map[core.InstanceID]uint64 // guarded by mu
	turn []core.InstanceID          // guarded by mu; oldest first
}

// maxProducers bounds an Inbox: restarts of the peer that it can tell apart.
const maxProducers = 16

// Receive takes the events of one stream, calls take for each new one in order,
// and acknowledges a batch after the last was taken. It ends with the stream;
// malformed batches end it with InvalidArgument.
func (in *Inbox) Receive(stream eventReceiver, take func(core.Event)) error {
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
		last := uint64(0)
		for _, e := range batch.GetEvents() {
			if in.fresh(from, e.GetSequence()) {
				take(eventFromProto(from, e))
			}
			last = e.GetSequence()
		}
		if err := stream.Send(&pb.EventAck{Sequence: last}); err != nil {
			return err
		}
	}
}

// fresh reports whether the number is new for its producer, and remembers it.
func (in *Inbox) fresh(from core.InstanceID, seq uint64) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	last, known := in.seen[from]
	if seq == 0 || known && seq <= last {
		return false
	}
	if !known {
		if in.seen == nil {
			in.seen = make(map[core.InstanceID]uint64)
		}
		if len(in.turn) == maxProducers {
			delete(in.seen, in.turn[0])
			in.turn = in.turn[1:]
		}
		in.turn = append(in.turn, from)
	}
	in.seen[from] = seq
	return true
}

func clipText(s string) string { return s[:min(len(s), 64)] }
