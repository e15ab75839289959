package h2

import (
	"context"
	"crypto/tls"
	"errors"
	"net"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	origins "github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/origin"
)

// Dialling makes a Dial of two steps. As connections for HTTP/1.1, those for HTTP/2 may meet
// a server that stops: a handshake that is broken off is tried once again.
func Dialling(dial func(context.Context, decide.Permit) (*net.TCPConn, error),
	handshake func(ctx context.Context, c net.Conn, host string, protocols []string) (*tls.Conn, error)) Dial {
	return func(ctx context.Context, p decide.Permit) (*tls.Conn, error) {
		for again := true; ; again = false {
			tcp, err := dial(ctx, p)
			if err != nil {
				return nil, err
			}
			tc, err := handshake(ctx, tcp, p.Host(), []string{"h2"})
			if err == nil {
				return tc, nil
			}
			tcp.Close()
			if e, ok := errors.AsType[*origins.Error](err); !again || !ok || e.Kind != origins.Closed || ctx.Err() != nil {
				return nil, err
			}
		}
	}
}
