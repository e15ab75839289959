package sshd

import (
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/launch/console"
)

// TestAViewersWindowsHoldNothingUp: those of one who only looks, and of one who types to a
// program without a terminal, lead nowhere, and what the client asks next is answered.
func TestAViewersWindowsHoldNothingUp(t *testing.T) {
	for name, readOnly := range map[string]bool{"of one who looks": true, "of one who types": false} {
		t.Run(name, func(t *testing.T) {
			main, err := console.Open(false, uint32(os.Getuid()))
			if err != nil {
				t.Fatal(err)
			}
			defer main.Close()
			const text = "shown"
			if _, err := main.Files[1].WriteString(text); err != nil {
				t.Fatal(err)
			}
			main.Launched(strings.NewReader(""), io.Discard, io.Discard)
			if readOnly {
				for main.Lease() == nil { // the end of the input may have it for a moment
				}
			}
			s, _ := testServer(t, func(c *Config) {
				c.Main, c.SignalMain = main, func(syscall.Signal) error { return nil }
			})
			session, err := mustDial(t, s).NewSession()
			if err != nil {
				t.Fatal(err)
			}
			out, err := session.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := session.RequestPty("xterm", 24, 80, nil); err != nil {
				t.Fatal(err)
			}
			if err := session.RequestSubsystem(subsystemMain); err != nil {
				t.Fatal(err)
			}
			for i := range 10 { // while the first is read
				if err := session.WindowChange(20+i, 80); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := io.ReadFull(out, make([]byte, len(text))); err != nil {
				t.Fatal(err)
			}
			answered := make(chan error, 1)
			go func() {
				_, err := session.SendRequest("env", true, gossh.Marshal(struct{ Name, Value string }{"LANG", "C"}))
				answered <- err
			}()
			select {
			case err := <-answered:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(time.Minute):
				t.Error("the client gets no answer any more")
			}
		})
	}
}
