package control

import (
	"context"
	"fmt"
	"net"

	"github.com/splitpod/splitpod/api/supervisor/link"
	"github.com/splitpod/splitpod/pkg/core"
)

// FetchListeners takes over the proxy listeners of a process daemon instance. The
// caller closes them. A descriptor with an unknown name, or one that is no TCP
// listener on a loopback address, is refused with all the others.
func (h *Hub) FetchListeners(ctx context.Context, instance core.InstanceID) ([]*net.TCPListener, error) {
	descriptors, err := link.FetchListeners(ctx, h.opt.RunDir, h.opt.PeerUID, h.opt.Instance, instance)
	if err != nil {
		return nil, err
	}
	var out []*net.TCPListener
	for _, d := range descriptors {
		l, lerr := tcpListener(d)
		if lerr != nil {
			err = lerr
			continue
		}
		out = append(out, l)
	}
	if err != nil {
		for _, l := range out {
			l.Close()
		}
		return nil, err
	}
	return out, nil
}

func tcpListener(d link.Descriptor) (*net.TCPListener, error) {
	defer d.File.Close()
	if d.Name != "proxy4" && d.Name != "proxy6" {
		return nil, fmt.Errorf("take over listeners: unknown name %q", d.Name)
	}
	l, err := net.FileListener(d.File)
	if err != nil {
		return nil, fmt.Errorf("take over listener %s: %w", d.Name, err)
	}
	tcp, ok := l.(*net.TCPListener)
	if !ok || !tcp.Addr().(*net.TCPAddr).IP.IsLoopback() {
		l.Close()
		return nil, fmt.Errorf("take over listener %s: %s is no TCP listener on a loopback address", d.Name, l.Addr())
	}
	return tcp, nil
}
