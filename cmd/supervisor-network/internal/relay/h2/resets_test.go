package h2

import (
	"fmt"
	"testing"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
)

// TestResetsOfOriginsAreStatuses: those that clients have for them, before an answer and in
// one.
func TestResetsOfOriginsAreStatuses(t *testing.T) {
	for reset, want := range map[http2.ErrCode]codes.Code{
		http2.ErrCodeProtocol:           codes.Internal,
		http2.ErrCodeInternal:           codes.Internal,
		http2.ErrCodeRefusedStream:      codes.Unavailable,
		http2.ErrCodeCancel:             codes.Canceled,
		http2.ErrCodeEnhanceYourCalm:    codes.ResourceExhausted,
		http2.ErrCodeInadequateSecurity: codes.PermissionDenied,
	} {
		for name, begun := range map[string]bool{"before an answer": false, "in an answer": true} {
			t.Run(fmt.Sprint(reset, " ", name), func(t *testing.T) {
				p, _ := pool(t, scripted(t, func(f *frames) {
					for s := f.head(); s != 0; s = f.head() { // what is refused comes again
						if begun {
							f.fields(s, false, ":status", "200", "content-type", "application/grpc")
						}
						_ = f.WriteRSTStream(s, reset)
					}
				}), Config{})
				_, err := caller(t, tunnel(t, p, nil)).UnaryCall(deadline(t), &pb.SimpleRequest{})
				if status.Code(err) != want {
					t.Errorf("%v, want %v", err, want)
				}
			})
		}
	}
}
