package exec

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/launch"
)

func closeFiles(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

func sendFile(c *net.UnixConn, text []byte, f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var sendErr error
	err = raw.Control(func(fd uintptr) { _, _, sendErr = c.WriteMsgUnix(text, unix.UnixRights(int(fd)), nil) })
	return errors.Join(err, sendErr)
}

// receiveFiles reads one datagram that carries exactly n descriptors.
func receiveFiles(c *net.UnixConn, n int) ([]*os.File, error) {
	oob := make([]byte, unix.CmsgSpace(4*n))
	_, oobn, flags, _, err := c.ReadMsgUnix(make([]byte, 64), oob)
	if err != nil {
		return nil, fmt.Errorf("read the exec request: %w", err)
	}
	files, err := launch.Descriptors(oob[:oobn])
	if err != nil {
		return nil, err
	}
	if len(files) != n || flags&unix.MSG_CTRUNC != 0 {
		closeFiles(files)
		return nil, fmt.Errorf("read the exec request: %d descriptors instead of %d", len(files), n)
	}
	return files, nil
}
