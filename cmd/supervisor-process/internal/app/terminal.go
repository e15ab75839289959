package app

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/launch"
)

// mainTerminal gives the workload a terminal of the sandbox's own when this daemon
// has one: a shell then has job control, and never holds the container's terminal.
func (d *daemon) mainTerminal(spec *launch.Spec) error {
	if !term.IsTerminal(0) || !term.IsTerminal(1) {
		return nil
	}
	t, err := launch.OpenTerminal(d.account.UID)
	if err != nil {
		return err
	}
	restore, err := connectTerminal(t.Master)
	if err != nil {
		t.Master.Close()
		t.Slave.Close()
		return err
	}
	d.terminal, d.restoreTerminal = t, restore
	d.resizeTerminal()
	spec.Files, spec.Terminal = [3]*os.File{t.Slave, t.Slave, t.Slave}, true
	return nil
}

func (d *daemon) resizeTerminal() {
	if size, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ); err == nil {
		_ = d.terminal.Resize(int(size.Col), int(size.Row))
	}
}

// connectTerminal connects this process's own terminal, in raw mode, to the master of
// another, until restore is called, which first shows what is left, and closes it.
func connectTerminal(master *os.File) (restore func(), err error) {
	old, err := term.MakeRaw(0)
	if err != nil {
		return nil, fmt.Errorf("set the terminal to raw mode: %w", err)
	}
	go func() { _, _ = io.Copy(master, os.Stdin) }()
	shown := make(chan struct{})
	go func() {
		defer close(shown)
		_, _ = io.Copy(os.Stdout, master) // ends with EIO when the program's side is closed
	}()
	return func() {
		select {
		case <-shown:
		case <-time.After(time.Second): // something in the background holds the terminal
		}
		_ = term.Restore(0, old)
		master.Close()
	}, nil
}
