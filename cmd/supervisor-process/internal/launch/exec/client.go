package exec

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/launch"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/launch/stage"
)

// Ask has a server run argv, with this process's standard files (a terminal of the sandbox's
// own in the place of this process's, if it has one, of the kind term), passes signals on,
// and returns the program's exit code when it has ended. With an error the code says what
// that deserves: 64 for a request that cannot be read, launch.LaunchError's for a program
// that was not executed, else 1. c is from Dial to Socket; the caller closes it.
func Ask(c *net.UnixConn, argv []string, term string) (code int, err error) {
	req := request{Argv: stage.Bytes(argv), Term: term}
	if size, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ); err == nil {
		req.Terminal, req.Columns, req.Rows = true, int(size.Col), int(size.Row)
	}
	out, err := passableOutput(os.Stdout, os.Stderr)
	if err != nil {
		return codeFailed, err
	}
	defer out.show()
	err = send(c, req, out.fds)
	out.sent()
	if errors.Is(err, unix.EPIPE) { // refused before it was asked
		return ending(c)
	}
	if err != nil {
		return codeFailed, err
	}
	if req.Terminal {
		restore, err := attachTerminal(c)
		if err != nil {
			return codeFailed, err
		}
		defer restore()
	}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, launch.Forwarded()...)
	defer signal.Stop(signals)
	go func() {
		for sig := range signals {
			text, _ := json.Marshal(messageFor(sig.(syscall.Signal)))
			_, _ = c.Write(text)
		}
	}()
	return ending(c)
}

// ending reads how the program ended. A signal that came too late for the server to read it
// makes the kernel say ECONNRESET, once and before the answer, which is there all the same.
func ending(c *net.UnixConn) (code int, err error) {
	buf := make([]byte, 16<<10)
	n, err := c.Read(buf)
	if errors.Is(err, unix.ECONNRESET) {
		n, err = c.Read(buf)
	}
	if err != nil || n == 0 {
		return codeFailed, errors.New("the sandbox ended")
	}
	var m message
	if err := json.Unmarshal(buf[:n], &m); err != nil {
		return codeFailed, fmt.Errorf("read the answer: %w", err)
	}
	if m.Error != "" {
		return m.Code, errors.New(m.Error)
	}
	return m.Code, nil
}

// messageFor passes a signal on; a change of the window, as its new size.
func messageFor(sig syscall.Signal) message {
	if sig == syscall.SIGWINCH {
		if size, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ); err == nil {
			return message{Columns: int(size.Col), Rows: int(size.Row)}
		}
	}
	return message{Signal: int(sig)}
}

// attachTerminal takes the other end of the program's terminal and connects ours to
// it, in raw mode until restore is called, which first shows what is left.
func attachTerminal(c *net.UnixConn) (restore func(), err error) {
	buf := make([]byte, 4096)
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := c.ReadMsgUnix(buf, oob)
	if err != nil || n == 0 {
		return nil, errors.New("the sandbox ended")
	}
	var m message
	if err := json.Unmarshal(buf[:n], &m); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	if m.Error != "" {
		return nil, errors.New(m.Error)
	}
	files, err := launch.Descriptors(oob[:oobn])
	if err != nil || len(files) != 1 || !m.Master {
		closeFiles(files)
		return nil, errors.New("the sandbox passed no terminal")
	}
	restore, err = connectTerminal(files[0])
	if err != nil {
		closeFiles(files)
	}
	return restore, err
}

func send(c *net.UnixConn, req request, outputs []int) error {
	text, err := json.Marshal(req)
	if err != nil {
		return err
	}
	f, err := launch.MemoryFile(text)
	if err != nil {
		return fmt.Errorf("send the exec request: %w", err)
	}
	defer f.Close()
	fds := append([]int{int(f.Fd()), 0}, outputs...)
	if _, _, err := c.WriteMsgUnix([]byte("exec"), unix.UnixRights(fds...), nil); err != nil {
		return fmt.Errorf("send the exec request: %w", err)
	}
	return nil
}
