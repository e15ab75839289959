package app

import (
	"encoding/json"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/splitpod/splitpod/api/supervisor/link"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/config"
)

// TestExecRefusesMoreThanItServes with a reason, and serves again when one has ended.
func TestExecRefusesMoreThanItServes(t *testing.T) {
	d := &daemon{cfg: &config.Config{RunDir: t.TempDir()}, log: slog.New(slog.DiscardHandler)}
	stop, err := d.serveExec(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	dial := func() *net.UnixConn {
		c, err := link.Dial(t.Context(), "unixpacket", d.cfg.RunDir, execSocket)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	ask := func(c *net.UnixConn) (m execMessage) {
		defer c.Close()
		buf := make([]byte, 4096)
		_, err := c.Write([]byte("exec")) // without what has to be beside it
		n := 0
		if err == nil {
			n, err = c.Read(buf)
		}
		if err == nil {
			err = json.Unmarshal(buf[:n], &m)
		}
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	var open []*net.UnixConn
	for range maxExecs {
		open = append(open, dial()) // it asks for nothing yet
	}
	if m := ask(dial()); m.Code != exitFailed || !strings.Contains(m.Error, "64 programs") {
		t.Errorf("one more was answered %+v", m)
	}
	if m := ask(open[0]); m.Code != exitUsage || !strings.Contains(m.Error, "0 descriptors instead of 4") {
		t.Errorf("one that has its place was answered %+v", m)
	}
	for deadline := time.Now().Add(time.Minute); ask(dial()).Code != exitUsage; {
		if time.Now().After(deadline) {
			t.Fatal("a place is not given back")
		}
	}
	for _, c := range open[1:] {
		c.Close()
	}
}
