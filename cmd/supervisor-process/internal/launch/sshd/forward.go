package sshd

import (
	"context"
	"io"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/gliderlabs/ssh"
	gossh "golang.org/x/crypto/ssh"

	"github.com/splitpod/splitpod/pkg/core"
)

// dialTimeout bounds one connection to the workload's loopback.
const dialTimeout = 10 * time.Second

// loopback is the one spelling of a host of the workload's loopback: localhost, or an
// address; clients have several.
func loopback(host string) (string, bool) {
	if strings.EqualFold(host, "localhost") {
		return "localhost", true
	}
	if inner, found := strings.CutPrefix(host, "["); found {
		if host, found = strings.CutSuffix(inner, "]"); !found {
			return "", false
		}
	}
	addr, err := netip.ParseAddr(host)
	if err != nil || addr.Zone() != "" || !addr.IsLoopback() {
		return "", false
	}
	return addr.Unmap().String(), true
}

// forward connects a direct-tcpip channel (RFC 4254 section 7.2) to the workload's
// loopback, and nowhere else. It dials before it says yes.
func (s *Server) forward(_ *ssh.Server, conn *gossh.ServerConn, channel gossh.NewChannel, ctx ssh.Context) {
	if !permits(conn.Permissions, "permit-port-forwarding") {
		s.refused(core.EventSSHRefused, "forwarding: the certificate does not permit it")
		_ = channel.Reject(gossh.Prohibited, "the certificate does not permit it")
		return
	}
	var to struct {
		Host       string
		Port       uint32
		OriginHost string
		OriginPort uint32
	}
	if err := gossh.Unmarshal(channel.ExtraData(), &to); err != nil || to.Port == 0 || to.Port > 65535 {
		s.refused(core.EventSSHRefused, "forwarding: the request cannot be read, or has no port")
		_ = channel.Reject(gossh.ConnectionFailed, "the request cannot be read")
		return
	}
	host, ok := loopback(to.Host)
	if !ok {
		s.refused(core.EventSSHRefused, "forwarding to %s, port %d, which is not the sandbox's loopback", named(to.Host), to.Port)
		_ = channel.Reject(gossh.Prohibited, "only the sandbox's own loopback can be reached: localhost, 127.0.0.0/8, ::1")
		return
	}
	dialCtx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	up, err := s.cfg.Dial(dialCtx, host, uint16(to.Port))
	if err != nil {
		s.refused(core.EventSSHFailed, "forwarding to %s, port %d: %v", named(to.Host), to.Port, err)
		_ = channel.Reject(gossh.ConnectionFailed, err.Error())
		return
	}
	defer up.Close()
	down, requests, err := channel.Accept()
	if err != nil {
		return
	}
	defer down.Close()
	stop := context.AfterFunc(ctx, func() { up.Close() })
	defer stop()
	go func() {
		gossh.DiscardRequests(requests)
		up.Close() // the channel is closed, whether or not the workload's end has noticed
	}()
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = io.Copy(up, down)
		if c, ok := up.(interface{ CloseWrite() error }); ok {
			_ = c.CloseWrite()
		}
	})
	wg.Go(func() {
		_, _ = io.Copy(down, up)
		_ = down.CloseWrite()
	})
	wg.Wait()
}
