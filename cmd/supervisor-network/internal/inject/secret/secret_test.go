package secret

import (
	"bytes"
	"context"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

const canary = "canary-value-93"

// holder has a Value in every way that a struct can.
type holder struct {
	Open    Value
	hidden  Value
	Pointer *Value
	List    []Value
	Map     map[string]Value
	Any     any
}

func held() holder {
	v := New(canary)
	return holder{v, v, &v, []Value{v}, map[string]Value{"k": v}, v}
}

func TestNoVerbPrintsAValue(t *testing.T) {
	v, h := New(canary), held()
	for c := rune(1); c < 128; c++ {
		for _, flags := range []string{"", "+", "#", "-20", "020", "+#", " "} {
			for _, operand := range []any{v, &v, h, &h, []any{h}, map[string]any{"a": h}} {
				if got := fmt.Sprintf("%"+flags+string(c), operand); leaks(got) {
					t.Fatalf("%%%s%c prints %q", flags, c, got)
				}
			}
		}
	}
}

func leaks(s string) bool {
	return strings.Contains(s, canary) || strings.Contains(s, fmt.Sprintf("%x", canary)) || strings.Contains(s, fmt.Sprintf("%X", canary))
}

func TestNoEncoderWritesAValue(t *testing.T) {
	v := New(canary)
	h := held()
	var out bytes.Buffer
	if err := json.NewEncoder(&out).Encode(h); err != nil {
		t.Fatal(err)
	}
	for _, operand := range []any{v, struct{ V Value }{v}} {
		if err := gob.NewEncoder(&out).Encode(operand); err == nil {
			t.Error("gob encodes a value")
		}
		_ = xml.NewEncoder(&out).Encode(operand)
		_ = yaml.NewEncoder(&out).Encode(operand)
	}
	log := slog.New(slog.NewJSONHandler(&out, nil))
	log.Info("m", "v", v, "p", &v, "h", h)
	slog.New(slog.NewTextHandler(&out, nil)).Info("m", "v", v, "p", &v, "h", h)
	if out.Len() == 0 || leaks(out.String()) {
		t.Errorf("written: %s", out.String())
	}
	if _, err := v.MarshalBinary(); err == nil {
		t.Error("marshalled as binary")
	}
}

func TestAValueCannotBeComparedByAccident(t *testing.T) {
	if reflect.TypeFor[Value]().Comparable() {
		t.Error("values are comparable with ==")
	}
	v := New(canary)
	if !v.Equal(New(canary)) || v.Equal(New(canary+"x")) || v.Equal(Value{}) || !(Value{}).Equal(Value{}) {
		t.Error("Equal is wrong")
	}
	if v.Expose() != canary || (Value{}).Expose() != "" {
		t.Error("Expose is wrong")
	}
}

func TestAFileIsASecret(t *testing.T) {
	full := strings.Repeat("x", MaxBytes)
	cases := []struct{ name, content, want, fails string }{
		{name: "as it is", content: "abc", want: "abc"},
		{name: "one line end is not part of it", content: "abc\n", want: "abc"},
		{name: "nor is CR LF", content: "abc\r\n", want: "abc"},
		{name: "a second line end is", content: "abc\n\n", want: "abc\n"},
		{name: "spaces are", content: " abc ", want: " abc "},
		{name: "a bare CR is", content: "abc\r", want: "abc\r"},
		{name: "the limit", content: full, want: full},
		{name: "the limit and a line end", content: full + "\r\n", want: full},
		{name: "above the limit", content: full + "x", fails: "it is longer than 65536 bytes"},
		{name: "far above the limit", content: full + full, fails: "it is longer than 65536 bytes"},
		{name: "empty", content: "", fails: "it is empty"},
		{name: "only a line end", content: "\n", fails: "it is empty"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := Read(path)
			if c.fails != "" {
				if err == nil || err.Error() != "read the secret "+path+": "+c.fails {
					t.Fatalf("error %v", err)
				}
				return
			}
			if err != nil || got.Value.Expose() != c.want || got.Changed.IsZero() {
				t.Fatalf("%v, %d bytes", err, len(got.Value.Expose()))
			}
		})
	}
}

func TestOnlyARegularFileIsRead(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, pipe, "/dev/zero", filepath.Join(dir, "missing")} {
		if _, err := Read(path); err == nil {
			t.Errorf("%s is read", path)
		}
	}
}

// swap does to a folder what the kubelet does: a new folder, and one link renamed.
func swap(t *testing.T, dir, version, content string) {
	t.Helper()
	if err := os.Mkdir(filepath.Join(dir, version), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, version, "token"), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(version, filepath.Join(dir, "..tmp")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}
}

func TestASwappedLinkIsNoticed(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "token")
	if err := os.Symlink("..data/token", path); err != nil {
		t.Fatal(err)
	}
	swap(t, dir, "..1", "one")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	noticed, ended := make(chan string, 16), make(chan struct{})
	go func() {
		defer close(ended)
		Watch(ctx, Folders([]string{path}), 50*time.Millisecond, slog.New(slog.NewTextHandler(io.Discard, nil)), func() []string {
			f, err := Read(path)
			if err == nil {
				select {
				case noticed <- f.Value.Expose():
				default:
				}
			}
			return Folders([]string{path})
		})
	}()
	waitFor(t, noticed, "one")
	swap(t, dir, "..2", "two")
	waitFor(t, noticed, "two")
	cancel()
	<-ended
}

func waitFor(t *testing.T, from <-chan string, want string) {
	t.Helper()
	deadline := time.After(time.Minute)
	for {
		select {
		case got := <-from:
			if got == want {
				return
			}
		case <-deadline:
			t.Fatalf("%q was never noticed", want)
		}
	}
}

func TestFoldersAreListedOnce(t *testing.T) {
	got := Folders([]string{"/a/x", "/a/y", "/b/x"})
	if len(got) != 2 || got[0] != "/a" || got[1] != "/b" {
		t.Errorf("folders %q", got)
	}
}
