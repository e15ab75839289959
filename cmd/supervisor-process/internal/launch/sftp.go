package launch

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/pkg/sftp"
)

// serveSFTP is the program behind SFTPServer. It runs inside the confinement, as the
// workload's user, on its standard input and output; the kernel decides what it may
// do.
func serveSFTP() error {
	server, err := sftp.NewServer(struct {
		io.Reader
		io.WriteCloser
	}{&plainModes{from: bufio.NewReader(os.Stdin)}, os.Stdout})
	if err != nil {
		return fmt.Errorf("sftp: %w", err)
	}
	if err := server.Serve(); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("sftp: %w", err)
	}
	return nil
}
