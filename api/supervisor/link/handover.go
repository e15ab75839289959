package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	pb "github.com/splitpod/splitpod/api/supervisor/v1"
	"github.com/splitpod/splitpod/pkg/core"
)

// Limits of the descriptor hand-over.
const (
	maxHandover     = 16      // descriptors in one response
	handoverBytes   = 8 << 10 // one datagram
	handoverTimeout = 5 * time.Second
)

// Descriptor is a named listening socket of the workload's namespace.
type Descriptor struct {
	Name string // "proxy4" or "proxy6"
	File *os.File
}

// FetchListeners asks the process daemon for its listeners. The caller closes the
// files; on error there are none.
func FetchListeners(ctx context.Context, runDir string, peerUID uint32, network, process core.InstanceID) ([]Descriptor, error) {
	c, err := Dial(ctx, "unixpacket", runDir, HandoverSocket)
	if err != nil {
		return nil, fmt.Errorf("fetch listeners: %w", err)
	}
	defer c.Close()
	if err := CheckPeer(c, peerUID); err != nil {
		return nil, fmt.Errorf("fetch listeners: %w", err)
	}
	if err := c.SetDeadline(time.Now().Add(handoverTimeout)); err != nil {
		return nil, fmt.Errorf("fetch listeners: %w", err)
	}
	req, err := proto.Marshal(&pb.HandoverRequest{NetworkInstanceId: string(network), ProcessInstanceId: string(process)})
	if err != nil {
		return nil, fmt.Errorf("fetch listeners: %w", err)
	}
	if _, err := c.Write(req); err != nil {
		return nil, fmt.Errorf("fetch listeners: %w", err)
	}
	return readHandover(c)
}

func readHandover(c *net.UnixConn) ([]Descriptor, error) {
	buf, oob := make([]byte, handoverBytes), make([]byte, unix.CmsgSpace(4*maxHandover))
	n, oobn, flags, _, err := c.ReadMsgUnix(buf, oob)
	if err != nil {
		return nil, fmt.Errorf("receive listeners: %w", err)
	}
	fds, err := parseRights(oob[:oobn])
	if err != nil {
		return nil, err
	}
	files := make([]*os.File, len(fds))
	for i, fd := range fds {
		unix.CloseOnExec(fd)
		files[i] = os.NewFile(uintptr(fd), "listener")
	}
	out, err := nameListeners(buf[:n], files)
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		err = errors.New("receive listeners: the message was cut")
	}
	if err != nil {
		for _, f := range files {
			f.Close()
		}
		return nil, err
	}
	return out, nil
}

func parseRights(oob []byte) ([]int, error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("receive listeners: %w", err)
	}
	var fds []int
	for i := range msgs {
		got, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			continue // another kind of control message
		}
		fds = append(fds, got...)
	}
	return fds, nil
}

func nameListeners(msg []byte, files []*os.File) ([]Descriptor, error) {
	var resp pb.HandoverResponse
	if err := proto.Unmarshal(msg, &resp); err != nil {
		return nil, fmt.Errorf("receive listeners: %w", err)
	}
	if resp.GetError() != "" {
		return nil, fmt.Errorf("the process daemon hands over no listeners: %s", resp.GetError())
	}
	if len(resp.GetListeners()) != len(files) || len(files) == 0 {
		return nil, fmt.Errorf("receive listeners: %d names for %d descriptors", len(resp.GetListeners()), len(files))
	}
	out := make([]Descriptor, len(files))
	for i, l := range resp.GetListeners() {
		out[i] = Descriptor{Name: l.GetName(), File: files[i]}
	}
	return out, nil
}

// ServeListener answers one hand-over request on c and closes it. check says which
// descriptors the asking network instance may have, or why none.
func ServeListener(c *net.UnixConn, peerUID uint32, own core.InstanceID, check func(network core.InstanceID) ([]Descriptor, error)) error {
	defer c.Close()
	if err := CheckPeer(c, peerUID); err != nil {
		return fmt.Errorf("hand over listeners: %w", err)
	}
	if err := c.SetDeadline(time.Now().Add(handoverTimeout)); err != nil {
		return fmt.Errorf("hand over listeners: %w", err)
	}
	buf := make([]byte, 512)
	n, err := c.Read(buf)
	if err != nil {
		return fmt.Errorf("hand over listeners: read the request: %w", err)
	}
	var req pb.HandoverRequest
	if err := proto.Unmarshal(buf[:n], &req); err != nil {
		return fmt.Errorf("hand over listeners: read the request: %w", err)
	}
	var descriptors []Descriptor
	if core.InstanceID(req.GetProcessInstanceId()) != own {
		err = errors.New("another process daemon instance was asked for")
	} else {
		descriptors, err = check(core.InstanceID(req.GetNetworkInstanceId()))
	}
	return errors.Join(err, writeHandover(c, descriptors, err))
}

func writeHandover(c *net.UnixConn, descriptors []Descriptor, refused error) error {
	resp := &pb.HandoverResponse{}
	var fds []int
	if refused != nil {
		resp.Error = refused.Error()
	}
	for _, d := range descriptors {
		fd, err := descriptorOf(d.File)
		if err != nil {
			return fmt.Errorf("hand over listener %s: %w", d.Name, err)
		}
		resp.Listeners = append(resp.Listeners, &pb.Listener{Name: d.Name})
		fds = append(fds, fd)
	}
	msg, err := proto.Marshal(resp)
	if err != nil {
		return fmt.Errorf("hand over listeners: %w", err)
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	if _, _, err := c.WriteMsgUnix(msg, oob, nil); err != nil {
		return fmt.Errorf("hand over listeners: %w", err)
	}
	return nil
}

// descriptorOf reads the number without File.Fd, which would make the shared
// socket blocking under the daemon that accepts on it.
func descriptorOf(f *os.File) (fd int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	err = raw.Control(func(n uintptr) { fd = int(n) })
	return fd, err
}
