package app

import (
	"log"
	"log/slog"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// harden keeps what this process holds in it: no core file is written, whatever the
// node does with those, and nobody of the same user may trace it or read its memory
// (prctl(2), PR_SET_DUMPABLE; core(5): a pipe in core_pattern ignores the limit).
func harden() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return os.NewSyscallError("setrlimit(RLIMIT_CORE)", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl(PR_SET_DUMPABLE)", err)
	}
	return nil
}

// overheard takes what net/http says of connections by itself. What it quotes are bytes of
// a peer, which may repeat a key: they are left out.
type overheard struct{ log *slog.Logger }

// overhear has that go to the daemon's log.
func overhear(to *slog.Logger) {
	log.SetFlags(0)
	log.SetOutput(overheard{to})
}

// Write implements io.Writer.
func (o overheard) Write(p []byte) (int, error) {
	said, _, _ := strings.Cut(string(p), `"`)
	o.log.Warn("a library has something to say", slog.String("problem", strings.TrimSpace(said)))
	return len(p), nil
}
