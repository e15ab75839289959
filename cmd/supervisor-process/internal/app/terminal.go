package app

import (
	"fmt"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/launch"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/launch/console"
)

// openConsole opens the main program's console: a terminal of the sandbox's own when
// the container has one or --terminal asks for it, so that a shell has job control
// and never holds the container's terminal; else pipes.
func (d *daemon) openConsole(spec *launch.Spec) error {
	outer := term.IsTerminal(0) && term.IsTerminal(1)
	c, err := console.Open(outer || d.cfg.Terminal, d.account.UID)
	if err != nil {
		return err
	}
	if outer {
		old, err := term.MakeRaw(0)
		if err != nil {
			c.Close()
			return fmt.Errorf("set the terminal to raw mode: %w", err)
		}
		d.restoreTerminal = func() { _ = term.Restore(0, old) }
	}
	d.console = c
	d.resizeTerminal()
	spec.Files, spec.Terminal = c.Files, c.Terminal()
	return nil
}

func (d *daemon) resizeTerminal() {
	if size, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ); err == nil {
		d.console.Resize(int(size.Col), int(size.Row))
	}
}
