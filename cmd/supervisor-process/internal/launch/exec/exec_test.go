package exec

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/splitpod/splitpod/api/supervisor/link"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/launch"
)

// TestExecRefusesMoreThanItServes with a reason, and serves again when one has ended.
func TestExecRefusesMoreThanItServes(t *testing.T) {
	dir := t.TempDir()
	l, err := link.Listen("unixpacket", dir, Socket, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		s := Server{Admit: func(net.Conn) error { return nil }, Log: slog.New(slog.DiscardHandler)}
		if err := s.Run(ctx, l); err != nil {
			t.Error(err)
		}
	})
	defer running.Wait()
	defer cancel()
	dial := func() *net.UnixConn {
		c, err := link.Dial(t.Context(), "unixpacket", dir, Socket)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	ask := func(c *net.UnixConn) (code int, err error) {
		defer c.Close()
		_, _ = c.Write([]byte("exec")) // without what has to be beside it, or too late
		return ending(c)
	}
	var open []*net.UnixConn
	for range maxPrograms {
		open = append(open, dial()) // it asks for nothing yet
	}
	if code, err := ask(dial()); code != codeFailed || !strings.Contains(fmt.Sprint(err), "64 programs") {
		t.Errorf("one more was answered %d, %v", code, err)
	}
	late := dial()
	defer late.Close()
	if code, err := ending(late); code != codeFailed || !strings.Contains(fmt.Sprint(err), "64 programs") {
		t.Errorf("one more that asks for nothing in time was answered %d, %v", code, err)
	}
	if code, err := ask(open[0]); code != codeUsage || !strings.Contains(fmt.Sprint(err), "0 descriptors instead of 4") {
		t.Errorf("one that has its place was answered %d, %v", code, err)
	}
	again := func() bool { code, _ := ask(dial()); return code == codeUsage }
	for deadline := time.Now().Add(time.Minute); !again(); {
		if time.Now().After(deadline) {
			t.Fatal("a place is not given back")
		}
	}
	for _, c := range open[1:] {
		c.Close()
	}
}

// TestASignalThatComesTooLateCostsNoExitCode: nobody reads it, and the answer is behind it.
func TestASignalThatComesTooLateCostsNoExitCode(t *testing.T) {
	dir := t.TempDir()
	l, err := link.Listen("unixpacket", dir, Socket, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := link.Dial(t.Context(), "unixpacket", dir, Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := c.Write([]byte(`{"signal":15}`)); err != nil {
			t.Fatal(err)
		}
	}
	tell(server.(*net.UnixConn), message{Done: true, Code: 7})
	server.Close()
	if code, err := ending(c); code != 7 || err != nil {
		t.Errorf("code %d, %v", code, err)
	}
	if code, err := ending(c); code != codeFailed || err == nil {
		t.Errorf("after the answer: code %d, %v", code, err)
	}
}

// TestASlowTerminalShowsAllOutput of a program that has ended.
func TestASlowTerminalShowsAllOutput(t *testing.T) {
	const size = 1 << 20
	terminal, err := launch.OpenTerminal(uint32(os.Getuid()))
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Master.Close()
	defer terminal.Slave.Close()
	p, err := passableOutput(terminal.Slave)
	if err != nil {
		t.Fatal(err)
	}
	shown := make(chan struct{})
	go func() {
		defer close(shown)
		if _, err := p.theirs[0].Write(bytes.Repeat([]byte{'x'}, size)); err != nil {
			t.Error(err)
		}
		p.sent()
		p.show()
	}()
	got := make([]byte, size)
	half, err := io.ReadFull(terminal.Master, got[:size-80<<10]) // the rest is in pipe and terminal
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(3 * quiet / 2)
	select {
	case <-shown:
		t.Fatal("it was not waited for")
	default:
	}
	if _, err := io.ReadFull(terminal.Master, got[half:]); err != nil {
		t.Error(err)
	}
	<-shown
}
