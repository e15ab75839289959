// Package filetransfer is the server of the SSH file transfer protocol, as a program of the
// sandbox.
//
// It answers the threat of a file transfer with other rights than the workload's: it runs
// confined, as the workload's user, and the kernel decides what it may do. It does not
// listen, and does not authenticate: the SSH server of the daemon does.
//
// Source: draft-ietf-secsh-filexfer-02.
package filetransfer

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/pkg/sftp"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/launch"
)

// Reexec serves on standard input and output if this program was started again for that,
// and returns its exit code; ok is false when it was not.
func Reexec(args []string) (code int, ok bool) {
	if len(args) != 1 || args[0] != launch.SFTPServer {
		return 0, false
	}
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, "sftp-server:", err)
		return 1, true
	}
	return 0, true
}

func serve() error {
	server, err := sftp.NewServer(struct {
		io.Reader
		io.WriteCloser
	}{&plainModes{from: bufio.NewReader(os.Stdin)}, os.Stdout})
	if err != nil {
		return err
	}
	if err := server.Serve(); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}
