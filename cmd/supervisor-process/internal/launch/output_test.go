package launch

import (
	"fmt"
	"io"
	"os"
	"testing"
	"time"
)

// TestOutputThatIsNotReadYetIsNotSilence: on a busy machine, what reads it runs late.
func TestOutputThatIsNotReadYetIsNotSilence(t *testing.T) {
	for _, alone := range []bool{false, true} {
		t.Run(fmt.Sprint(alone), func(t *testing.T) { testUnreadOutput(t, alone) })
	}
}

func testUnreadOutput(t *testing.T, alone bool) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	slow, taken := io.Pipe() // whoever takes it takes a while
	o := Output{Alone: alone}
	o.Copy(taken, r)
	if !o.idle() {
		t.Error("an empty pipe holds output")
	}
	if _, err := w.WriteString("last words"); err != nil {
		t.Fatal(err)
	}
	w.Close()
	rested := make(chan struct{})
	go func() { defer close(rested); o.Rest(time.Millisecond) }()
	for range 20 { // as many looks as end a silence ten times
		time.Sleep(time.Millisecond)
	}
	select {
	case <-rested:
		t.Fatal("nobody waits for what is in the pipe, or was read and not taken")
	default:
	}
	got := make([]byte, len("last words"))
	if _, err := io.ReadFull(slow, got); err != nil || string(got) != "last words" {
		t.Errorf("%q, %v", got, err)
	}
	<-rested
}

// TestTheRestOfTheOutput ends with the output, or when something in the background holds
// it: silent, or writing for ever.
func TestTheRestOfTheOutput(t *testing.T) {
	for name, behave := range map[string]func(w *os.File){
		"closed": func(w *os.File) { w.Close() },
		"silent": func(*os.File) {},
		"endless": func(w *os.File) {
			go func() {
				for {
					if _, err := w.Write(make([]byte, 64<<10)); err != nil {
						return
					}
				}
			}()
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			defer r.Close()
			var o Output
			o.Copy(io.Discard, r)
			behave(w)
			o.Rest(10 * time.Millisecond) // or the test never ends
		})
	}
}

// TestWhatGoesOnInTheBackgroundIsNotWaitedFor by those who want the program's own output.
func TestWhatGoesOnInTheBackgroundIsNotWaitedFor(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	defer r.Close()
	came := make(chan struct{})
	o := Output{Alone: true}
	o.Copy(writerFunc(func(p []byte) (int, error) { came <- struct{}{}; return len(p), nil }), r)
	go func() { // something comes between any two looks, and is taken
		for err := error(nil); err == nil; <-came {
			time.Sleep(time.Millisecond) // for most of the time nothing of it waits
			_, err = w.Write([]byte{'x'})
		}
	}()
	o.Rest(20 * time.Millisecond) // or the test never ends
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
