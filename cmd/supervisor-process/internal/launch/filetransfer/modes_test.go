package filetransfer

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/pkg/sftp"
)

// packet makes one: kind, id 7, a name, and the rest as 32-bit words.
func sftpPacket(kind byte, name string, words ...uint32) []byte {
	b := binary.BigEndian.AppendUint32([]byte{kind}, 7)
	b = append(binary.BigEndian.AppendUint32(b, uint32(len(name))), name...)
	for _, w := range words {
		b = binary.BigEndian.AppendUint32(b, w)
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)
}

func TestModesLoseTheirIDBitsAndNothingElse(t *testing.T) {
	for name, tt := range map[string]struct{ sent, arrives []byte }{
		"a mode":              {sftpPacket(sftpSetstat, "/x", attrMode, 0o6755), sftpPacket(sftpSetstat, "/x", attrMode, 0o755)},
		"a handle's":          {sftpPacket(sftpFsetstat, "h", attrMode, 0o104755), sftpPacket(sftpFsetstat, "h", attrMode, 0o100755)},
		"a directory's":       {sftpPacket(sftpMkdir, "/d", attrMode, 0o3777), sftpPacket(sftpMkdir, "/d", attrMode, 0o1777)},
		"a new file's":        {sftpPacket(sftpOpen, "/x", 26, attrMode, 0o4755), sftpPacket(sftpOpen, "/x", 26, attrMode, 0o755)},
		"behind a size":       {sftpPacket(sftpSetstat, "/x", attrSize|attrMode, 0o6000, 0o6000, 0o4755), sftpPacket(sftpSetstat, "/x", attrSize|attrMode, 0o6000, 0o6000, 0o755)},
		"behind ids and size": {sftpPacket(sftpSetstat, "", 15, 1, 2, 3, 4, 0o7777, 0o6000), sftpPacket(sftpSetstat, "", 15, 1, 2, 3, 4, 0o1777, 0o6000)},
		"no mode":             {sftpPacket(sftpSetstat, "/x", attrSize, 0o6000, 0o6000), nil},
		"what is written":     {sftpPacket(6, "h", 0, 0, 4, 0o6755, attrMode, 0o6755), nil},
		"cut":                 {sftpPacket(sftpSetstat, "/x", attrMode), nil},
		"a name too long":     {[]byte{0, 0, 0, 9, sftpSetstat, 0, 0, 0, 7, 0xff, 0xff, 0xff, 0xff}, nil},
		"nothing":             {[]byte{0, 0, 0, 0}, nil},
	} {
		if tt.arrives == nil {
			tt.arrives = tt.sent
		}
		twice := append(append([]byte{}, tt.sent...), tt.sent...)
		got, err := io.ReadAll(&plainModes{from: io.MultiReader(bytes.NewReader(twice[:5]), bytes.NewReader(twice[5:]))})
		if want := append(append([]byte{}, tt.arrives...), tt.arrives...); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %v\n got %x\nwant %x", name, err, got, want)
		}
	}
	edge := append(binary.BigEndian.AppendUint32(nil, maxSFTPPacket), make([]byte, maxSFTPPacket)...)
	if got, err := io.ReadAll(&plainModes{from: bytes.NewReader(edge)}); err != nil || len(got) != len(edge) {
		t.Errorf("the longest packet: %d bytes, %v", len(got), err)
	}
	over := binary.BigEndian.AppendUint32(nil, maxSFTPPacket+1)
	if got, err := io.ReadAll(&plainModes{from: bytes.NewReader(over)}); err != nil || !bytes.Equal(got, over) {
		t.Errorf("one byte more: %x, %v", got, err)
	}
}

// FuzzPlainModes: what goes through keeps its length, and no byte of it grows.
func FuzzPlainModes(f *testing.F) {
	f.Add(sftpPacket(sftpSetstat, "/x", attrMode, 0o6755))
	f.Add(sftpPacket(sftpOpen, "/x", 26, 15, 1, 2, 3, 4, 0o7777, 0o6000))
	f.Fuzz(func(t *testing.T, in []byte) {
		out, err := io.ReadAll(&plainModes{from: bytes.NewReader(in)})
		if len(out) > len(in) || err == nil && len(out) != len(in) {
			t.Fatalf("%d bytes became %d (%v)", len(in), len(out), err)
		}
		for i := range out {
			if out[i]&^in[i] != 0 {
				t.Fatalf("byte %d became %#x from %#x", i, out[i], in[i])
			}
		}
	})
}

// TestAnUploadNeverLendsItsIDs, with a real client and server.
func TestAnUploadNeverLendsItsIDs(t *testing.T) {
	toServer, client := io.Pipe()
	fromServer, server := io.Pipe()
	s, err := sftp.NewServer(struct {
		io.Reader
		io.WriteCloser
	}{&plainModes{from: toServer}, server})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = s.Serve()
		server.Close()
	}()
	c, err := sftp.NewClientPipe(fromServer, client)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	path := filepath.Join(t.TempDir(), "program")
	f, err := c.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	text := bytes.Repeat([]byte("0123456789"), 100_000)
	if _, err := f.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := c.Chmod(path, 0o755|os.ModeSetuid|os.ModeSetgid); err != nil {
		t.Fatal(err)
	}
	if err := f.Chmod(0o711 | os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode() != 0o711 {
		t.Errorf("mode %v (%v)", st.Mode(), err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, text) {
		t.Errorf("%d bytes arrived (%v)", len(got), err)
	}
}
