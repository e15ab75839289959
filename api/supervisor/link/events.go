package link

import (
	"context"
	"errors"
	"fmt"

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
