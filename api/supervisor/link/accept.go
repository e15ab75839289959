package link

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"
)

// acceptAgain is the pause after a connection that could not be accepted.
const acceptAgain = 100 * time.Millisecond

// Accept calls serve, one call after the other, with every connection to l, a Unix socket,
// until ctx ends, and closes l. What fails for a while, for want of descriptors for instance, is logged and
// tried again; the error is of an l that somebody else closed.
func Accept(ctx context.Context, l net.Listener, log *slog.Logger, serve func(*net.UnixConn)) error {
	defer l.Close()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		c, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				c.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept on %s: %w", l.Addr(), err)
		case err != nil:
			log.Warn("a connection could not be accepted", slog.String("socket", l.Addr().String()), slog.Any("error", err))
			select {
			case <-ctx.Done():
			case <-time.After(acceptAgain):
			}
		default:
			serve(c.(*net.UnixConn))
		}
	}
}
