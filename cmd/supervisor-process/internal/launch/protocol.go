package launch

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// The messages on the socketpair between the daemon and init, one JSON object a
// datagram, descriptors beside it:
//
//	daemon → init                       init → daemon
//	setup   data and files, as many     ready    data, names + descriptors
//	        descriptors, or before it:
//	                                    failed   error
//	launch  session + 4 descriptors     started  session, pid, data (what was applied)
//	        (plan, stdin, out, err),    refused  session, error, code
//	        or 5 (cgroup.procs)         exited   session, code, signal
//	signal  session, signal
//	all     signal
//	query   session (a number), name    answer   session, data or error
type message struct {
	Op      string          `json:"op"`
	Session uint64          `json:"session,omitempty"`
	PID     int             `json:"pid,omitempty"`
	Code    int             `json:"code,omitempty"`
	Signal  int             `json:"signal,omitempty"`
	Name    string          `json:"name,omitempty"`
	Names   []string        `json:"names,omitempty"`
	Error   string          `json:"error,omitempty"`
	Data    json.RawMessage `json:"data,omitempty"`
}

// Limits of one datagram.
const (
	maxMessage     = 128 << 10
	maxDescriptors = 16
)

// send writes one message. Files stay the caller's.
func send(c *net.UnixConn, m message, files ...*os.File) error {
	text, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode %s: %w", m.Op, err)
	}
	if len(text) > maxMessage || len(files) > maxDescriptors {
		return fmt.Errorf("message %s is too large", m.Op)
	}
	var oob []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			if fds[i], err = number(f); err != nil {
				return fmt.Errorf("send %s: %w", m.Op, err)
			}
		}
		oob = unix.UnixRights(fds...)
	}
	if _, _, err := c.WriteMsgUnix(text, oob, nil); err != nil {
		return fmt.Errorf("send %s: %w", m.Op, err)
	}
	return nil
}

// number reads a descriptor's number without making the file blocking.
func number(f *os.File) (fd int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	err = raw.Control(func(n uintptr) { fd = int(n) })
	return fd, err
}

// receive reads one message with its descriptors, which are the caller's. A
// message that is cut or malformed is an error, and there are no descriptors then.
func receive(c *net.UnixConn, buf []byte) (message, []*os.File, error) {
	oob := make([]byte, unix.CmsgSpace(4*maxDescriptors))
	n, oobn, flags, _, err := c.ReadMsgUnix(buf, oob)
	if err != nil {
		return message{}, nil, fmt.Errorf("receive: %w", err)
	}
	files, err := Descriptors(oob[:oobn])
	var m message
	if err == nil {
		err = decode(buf[:n], flags, &m)
	}
	if err != nil {
		closeAll(files)
		return message{}, nil, err
	}
	return m, files, nil
}

func decode(text []byte, flags int, m *message) error {
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		return errors.New("receive: a message was cut")
	}
	if len(text) == 0 {
		return net.ErrClosed
	}
	if err := json.Unmarshal(text, m); err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	return nil
}

// Descriptors are the files that a message of a Unix socket carried (unix(7), SCM_RIGHTS),
// closed on exec. The caller closes them; with an error there are none.
func Descriptors(oob []byte) ([]*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("receive descriptors: %w", err)
	}
	var files []*os.File
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// memoryFile holds v as JSON, ready to be read from its start: argument vectors and
// certificates are larger than a datagram.
func memoryFile(v any) (*os.File, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return MemoryFile(text)
}

// MemoryFile holds text, ready to be read from its start.
func MemoryFile(text []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("message", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "message")
	if _, err := f.Write(text); err != nil {
		f.Close()
		return nil, err
	}
	if _, err := f.Seek(0, 0); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
