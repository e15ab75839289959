package http2

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/pkg/core"
)

// TestACallWhoseTimeIsOverIsNotUnavailable: an origin that keeps the time of a call resets
// its stream, which clients would take for a reason to call again.
func TestACallWhoseTimeIsOverIsNotUnavailable(t *testing.T) {
	for _, c := range []struct {
		timeout string
		status  int // of a refusal; 0: the answer breaks off
		want    string
	}{
		{"1n", 502, "4"},
		{"1n", 503, "4"},
		{"1n", 0, "4"},
		{"1n", 403, "7"},
		{"1H", 502, "14"},
		{"1H", 0, "14"},
		{"", 502, "14"},
		{"", 0, "14"},
	} {
		t.Run(fmt.Sprintf("%s %d", c.timeout, c.status), func(t *testing.T) {
			f := serve(t, Options{}, func(ctx context.Context, s *Stream) {
				if c.status != 0 {
					_ = s.Deny(c.status, core.ReasonUpstreamInvalid, "", "", http1.ErrorBody{})
					return
				}
				resp := response("")
				resp.Body = io.NopCloser(io.MultiReader(strings.NewReader("begun"), iotest.ErrReader(errors.New("reset"))))
				_ = s.Respond(ctx, resp)
			})
			r := dial(t, f).hello()
			head := call("application/grpc")
			if c.timeout != "" {
				head = append(head, fields("grpc-timeout", c.timeout)...)
			}
			r.headers(1, true, head)
			if a := r.answer(1); a.fields["grpc-status"]+a.trailer["grpc-status"] != c.want {
				t.Errorf("want status %s: %+v", c.want, a)
			}
		})
	}
}

func TestTimeoutsOfCalls(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0n": 0, "20m": 20 * time.Millisecond, "5S": 5 * time.Second, "3u": 3 * time.Microsecond, "2M": 2 * time.Minute, "7H": 7 * time.Hour,
		"99999999H": math.MaxInt64, "99999999S": 99999999 * time.Second,
		"": -1, "5": -1, "S": -1, "-5S": -1, "+5S": -1, "5s": -1, "5.0S": -1, "100000000n": -1, "5 S": -1,
	} {
		got, ok := timeout(text)
		if !ok {
			got = -1
		}
		if got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

// TestACallIsToldOfTheEndInItsMiddle, by a client of the gRPC project: one that has whole
// messages sees the status. Half a message is broken to it whatever follows.
func TestACallIsToldOfTheEndInItsMiddle(t *testing.T) {
	message, err := proto.Marshal(&pb.StreamingOutputCallResponse{Payload: &pb.Payload{Body: []byte("whole")}})
	if err != nil {
		t.Fatal(err)
	}
	message = append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
	for name, c := range map[string]struct {
		half int
		code codes.Code
		says string
	}{
		"behind a message": {0, codes.Unavailable, "shutdown: the daemon is stopping"},
		"in a message":     {7, codes.Internal, "unexpected EOF"},
		"in its head":      {2, codes.Internal, "unexpected EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			f := serve(t, Options{}, func(ctx context.Context, s *Stream) {
				resp := response("", "Content-Type", "application/grpc")
				resp.Body = io.NopCloser(io.MultiReader(bytes.NewReader(message), bytes.NewReader(message[:c.half]), until{ctx}))
				_ = s.Respond(ctx, resp)
			})
			cc, err := grpc.NewClient(f.addr, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{ServerName: host, RootCAs: roots()})))
			if err != nil {
				t.Fatal(err)
			}
			defer cc.Close()
			call, err := pb.NewTestServiceClient(cc).StreamingOutputCall(t.Context(), &pb.StreamingOutputCallRequest{})
			if err != nil {
				t.Fatal(err)
			}
			if m, err := call.Recv(); err != nil || string(m.Payload.Body) != "whole" {
				t.Fatalf("%v, %v", m, err)
			}
			f.cancel()
			_, err = call.Recv()
			if s := status.Convert(err); s.Code() != c.code || s.Message() != c.says {
				t.Errorf("%v", err)
			}
		})
	}
}
