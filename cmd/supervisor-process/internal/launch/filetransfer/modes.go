package filetransfer

import (
	"encoding/binary"
	"io"
)

// plainModes reads the client's side of an SFTP session and takes the set-user-id and
// set-group-id bits out of every mode in it: a file that came from outside must not
// become a program that lends the workload's ids, on a volume that others mount too.
//
// Source: draft-ietf-secsh-filexfer-02, sections 3, 5 and 6.
type plainModes struct {
	from io.Reader
	next []byte // of the packet that is being handed on
	buf  []byte
}

// maxSFTPPacket is what the server behind this takes; a longer one is not read.
const maxSFTPPacket = 256 << 10

// Read implements io.Reader.
func (m *plainModes) Read(p []byte) (int, error) {
	if len(m.next) == 0 {
		if err := m.packet(); err != nil {
			return 0, err
		}
	}
	n := copy(p, m.next)
	m.next = m.next[n:]
	return n, nil
}

// packet reads one whole packet.
func (m *plainModes) packet() error {
	if m.buf == nil {
		m.buf = make([]byte, 4+maxSFTPPacket)
	}
	if _, err := io.ReadFull(m.from, m.buf[:4]); err != nil {
		return err
	}
	length := binary.BigEndian.Uint32(m.buf)
	if length > maxSFTPPacket {
		m.next = m.buf[:4] // the server behind this ends the session for it
		return nil
	}
	if _, err := io.ReadFull(m.from, m.buf[4:4+length]); err != nil {
		return err
	}
	m.next = m.buf[:4+length]
	clearIDs(m.next[4:])
	return nil
}

// Packets with attributes, and the flags of those.
const (
	sftpOpen, sftpSetstat, sftpFsetstat, sftpMkdir = 3, 9, 10, 14
	attrSize, attrIDs, attrMode                    = 1, 2, 4
	setIDs                                         = 0o6000
)

// clearIDs clears the bits in a packet (type, id, string, attributes), if it has any.
func clearIDs(b []byte) {
	if len(b) < 9 {
		return
	}
	kind, name := b[0], binary.BigEndian.Uint32(b[5:])
	at := 9 + uint64(name)
	switch kind {
	case sftpOpen:
		at += 4 // how to open it
	case sftpSetstat, sftpFsetstat, sftpMkdir:
	default:
		return
	}
	if at+4 > uint64(len(b)) {
		return
	}
	flags := binary.BigEndian.Uint32(b[at:])
	at += 4
	for _, f := range []uint32{attrSize, attrIDs} {
		if flags&f != 0 {
			at += 8
		}
	}
	if flags&attrMode == 0 || at+4 > uint64(len(b)) {
		return
	}
	binary.BigEndian.PutUint32(b[at:], binary.BigEndian.Uint32(b[at:])&^setIDs)
}
