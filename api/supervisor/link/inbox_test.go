package link

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "github.com/splitpod/splitpod/api/supervisor/v1"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/outbox"
)

func openInbox(t *testing.T, path string) *Inbox {
	t.Helper()
	in, err := OpenInbox(path, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(in.Release)
	return in
}

func TestAnInboxGoesOnWhereItsEarlierInstanceStopped(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events")
	one, other := core.NewInstanceID(), core.NewInstanceID()
	in := openInbox(t, path)
	if !fresh(in, one, 7) || !fresh(in, other, 3) {
		t.Fatal("new events are not taken")
	}
	in.Release()
	again := openInbox(t, path)
	if fresh(again, one, 7) || fresh(again, other, 3) || !fresh(again, one, 8) || !fresh(again, other, 4) || again.Unsure() != 0 {
		t.Errorf("the earlier instance's numbers are not kept; %d unsure", again.Unsure())
	}
}

func TestADaemonRunsOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events")
	in := openInbox(t, path)
	for _, does := range []string{"takes events", "takes none any more, and ends"} {
		if _, err := OpenInbox(path, nil); err == nil || !strings.Contains(err.Error(), "in use") {
			t.Errorf("a second daemon starts beside the first, which %s: %v", does, err)
		}
		in.Close()
	}
	in.Release()
	openInbox(t, path)
}

func TestAClosedInboxTakesNothingAndAcknowledgesNothing(t *testing.T) {
	in := openInbox(t, filepath.Join(t.TempDir(), "events"))
	in.Close()
	w := newWire(t.Context())
	go func() {
		w.batches <- &pb.EventBatch{InstanceId: string(core.NewInstanceID()), Events: []*pb.Event{{Sequence: 1}}}
	}()
	if err := in.Receive(receiverEnd{w}, func([]core.Event) { t.Error("events were taken") }); err == nil {
		t.Error("the stream goes on")
	}
}

// TestABatchIsNotedBeforeItIsTaken looks at the file from within.
func TestABatchIsNotedBeforeItIsTaken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events")
	in := openInbox(t, path)
	id := core.NewInstanceID()
	in.take(id, []*pb.Event{{Sequence: 1}, {Sequence: 2}, {Sequence: 3}}, func(evs []core.Event) {
		data, err := os.ReadFile(path)
		copied := path + ".copy" // the lock is the living one's
		if err := errors.Join(err, os.WriteFile(copied, data, 0o600)); err != nil {
			t.Fatal(err)
		}
		killed := openInbox(t, copied)
		if killed.Unsure() != 3 || fresh(killed, id, 3) || !fresh(killed, id, 4) {
			t.Errorf("killed now, the next instance is unsure of %d events, want 3", killed.Unsure())
		}
	})
	in.Release()
	if next := openInbox(t, path); next.Unsure() != 0 {
		t.Errorf("%d events are unsure after they were taken", next.Unsure())
	}
}

func TestTheLedgerIsReadAsItIsWrittenOrNotAtAll(t *testing.T) {
	var full []mark
	for i := range maxProducers {
		full = append(full, mark{core.NewInstanceID(), uint64(i), uint64(i)})
	}
	id := string(full[0].from)
	line := func(id string, begun, done uint64) string { return fmt.Sprintf(lineFormat, id, begun, done) }
	for name, tt := range map[string]struct {
		text string
		want []mark // nil: refused
	}{
		"empty":                     {"", []mark{}},
		"one":                       {line(id, 7, 7), []mark{{core.InstanceID(id), 7, 7}}},
		"killed while taking":       {line(id, 7, 3), []mark{{core.InstanceID(id), 7, 3}}},
		"the largest number":        {line(id, 1<<64-1, 0), []mark{{core.InstanceID(id), 1<<64 - 1, 0}}},
		"as many as are remembered": {string(appendMarks(nil, full)), full},
		"one more":                  {string(appendMarks(nil, full)) + line(id, 1, 1), nil},
		"a line that is cut":        {line(id, 7, 7)[:lineBytes-2] + "\n", nil},
		"no end of line":            {line(id, 7, 7)[:lineBytes-1], nil},
		"done before it was begun":  {line(id, 7, 8), nil},
		"no instance":               {line(strings.Repeat("X", 32), 7, 7), nil},
		"a sign":                    {strings.Replace(line(id, 7, 7), " 0", " +", 1), nil},
		"another separator":         {strings.Replace(line(id, 7, 7), " ", "\t", 1), nil},
		"a number too large":        {strings.Replace(line(id, 7, 7), "0000000000000000000", "9999999999999999999", 1), nil},
		"zeros":                     {strings.Repeat("\x00", lineBytes), nil},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "events")
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			l, got, err := openLedger(path, nil)
			if tt.want == nil {
				if err == nil || got != nil {
					t.Errorf("read as %v", got)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			l.file.Close()
			if d := cmp.Diff(tt.want, append([]mark{}, got...), cmp.AllowUnexported(mark{})); d != "" {
				t.Error(d)
			}
		})
	}
}

// FuzzParseMarks: what is read is exactly what would be written.
func FuzzParseMarks(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string) {
		marks, err := parseMarks(text)
		if err != nil {
			if marks != nil {
				t.Errorf("an error with %d marks", len(marks))
			}
			return
		}
		if again := string(appendMarks(nil, marks)); again != text || len(marks) > maxProducers {
			t.Errorf("%q reads as %q", text, again)
		}
	})
}

func TestTheLedgerIsARegularFileAndNoLink(t *testing.T) {
	for name, lay := range map[string]func(path string) error{
		"a link":      func(path string) error { return os.Symlink(filepath.Join(filepath.Dir(path), "elsewhere"), path) },
		"a FIFO":      func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"a directory": func(path string) error { return os.Mkdir(path, 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "events")
			if err := lay(path); err != nil {
				t.Fatal(err)
			}
			if _, err := OpenInbox(path, nil); err == nil {
				t.Error("it was opened")
			}
		})
	}
}

func TestAFailedNoteIsToldOnceAndEventsAreTakenAllTheSame(t *testing.T) {
	told := 0
	in, err := OpenInbox(filepath.Join(t.TempDir(), "events"), func(error) { told++ })
	if err != nil {
		t.Fatal(err)
	}
	in.ledger.file.Close() // writes fail from now on
	id := core.NewInstanceID()
	for seq := range uint64(3) {
		if !fresh(in, id, seq+1) || fresh(in, id, seq+1) {
			t.Error("the memory is not what counts")
		}
	}
	if told != 1 {
		t.Errorf("told %d times, want once", told)
	}
}

// TestMain is the receiver of TestAHundredKillsCountNothingTwice when it is told so.
func TestMain(m *testing.M) {
	if path := os.Getenv(receiverFile); path != "" {
		receiveForEver(path)
	}
	os.Exit(m.Run())
}

const receiverFile = "SPLITPOD_TEST_INBOX"

// receiveForEver is the receiver of TestAHundredKillsCountNothingTwice: it prints each
// event and then lets the batch be acknowledged. Descriptor 3 is its listener.
func receiveForEver(path string) {
	in, err := OpenInbox(path, func(err error) { fmt.Println("error", err) })
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Printf("unsure %d\n", in.Unsure())
	l, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	srv := grpc.NewServer()
	pb.RegisterNetworkServiceServer(srv, receiver{in: in})
	_ = srv.Serve(l)
}

type receiver struct {
	pb.UnimplementedNetworkServiceServer
	in *Inbox
}

func (r receiver) ReportEvents(stream grpc.BidiStreamingServer[pb.EventBatch, pb.EventAck]) error {
	return r.in.Receive(stream, func(evs []core.Event) {
		for _, ev := range evs {
			fmt.Printf("event %s\n", ev.Host)
		}
	})
}

// TestAHundredKillsCountNothingTwice kills the receiver of a steady flow, each time
// somewhere in a batch: every event arrives once, or is one of those that the next
// instance says it is unsure of.
func TestAHundredKillsCountNothingTwice(t *testing.T) {
	kills := 100
	if testing.Short() {
		kills = 20
	}
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, "sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	file, err := l.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	conn, err := grpc.NewClient("unix:"+filepath.Join(dir, "sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()

	box, own := outbox.New(1<<20), core.NewInstanceID()
	go func() {
		for t.Context().Err() == nil {
			if stream, err := pb.NewNetworkServiceClient(conn).ReportEvents(t.Context(), grpc.WaitForReady(true)); err == nil {
				_ = SendEvents(t.Context(), stream, own, box)
			}
		}
	}()

	sent, seen, unsure, kill := 0, make(map[string]int), uint64(0), 0
	for ; kill <= kills; kill++ {
		for range 1000 {
			box.Add(core.Event{Kind: core.EventBypass, Reason: core.ReasonBypass, Host: fmt.Sprintf("h%d", sent)})
			sent++
		}
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), receiverFile+"="+filepath.Join(dir, "events"))
		cmd.ExtraFiles = []*os.File{file}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if kill == kills {
			go func() {
				tick := time.NewTicker(5 * time.Millisecond)
				defer tick.Stop()
				for box.Stats().Waiting > 0 {
					<-tick.C
				}
				_ = cmd.Process.Kill()
			}()
		}
		got := 0
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			what, value, _ := strings.Cut(lines.Text(), " ")
			switch what {
			case "event":
				seen[value]++
				got++
			case "unsure":
				var n uint64
				fmt.Sscan(value, &n)
				unsure += n
			default:
				t.Fatalf("the receiver says %q", lines.Text())
			}
			if kill < kills && got == 1+kill*37%800 { // within, at the edge of and after a batch
				_ = cmd.Process.Kill()
			}
		}
		_ = cmd.Wait()
	}
	twice := 0
	for _, n := range seen {
		if n > 1 {
			twice++
		}
	}
	lost := uint64(sent - len(seen))
	t.Logf("%d kills, %d events: %d lost, %d told as unsure, %d counted twice", kills, sent, lost, unsure, twice)
	if twice > 0 || lost > unsure || unsure > uint64(kills*maxBatch) {
		t.Errorf("%d events: %d lost, %d told as unsure, %d counted twice", sent, lost, unsure, twice)
	}
	if unsure == 0 {
		t.Error("no kill hit a batch: the test shows nothing")
	}
}
