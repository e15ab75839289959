package app

import (
	"log/slog"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/config"
)

// TestTooFewDescriptorsAreSaidAtTheStart, and one more than that are enough.
func TestTooFewDescriptorsAreSaidAtTheStart(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	most := int(connectionsFor(limit.Cur))
	for connections, warns := range map[int]bool{most: false, most + 1: true} {
		var log strings.Builder
		d := &daemon{cfg: &config.Config{MaxConnections: connections}, log: slog.New(slog.NewTextHandler(&log, nil))}
		d.warnOfDescriptors()
		if strings.Contains(log.String(), "--max-connections") != warns {
			t.Errorf("%d of %d connections: %q", connections, most, log.String())
		}
	}
	for limit, want := range map[uint64]uint64{0: 0, otherDescriptors: 0, otherDescriptors + 3: 1, 1 << 20: (1<<20 - otherDescriptors) / 2} {
		if got := connectionsFor(limit); got != want {
			t.Errorf("%d descriptors: %d connections, want %d", limit, got, want)
		}
	}
}
