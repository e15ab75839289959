package cluster

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/splitpod/splitpod/test/world"
)

// DNS is the cluster's name server: it knows the origins' names, says no to every
// other, and remembers every question.
type DNS struct {
	mu    sync.Mutex
	asked map[string]int // guarded by mu
}

// Asked is how often a name was asked for, with or without a search domain behind it.
func (d *DNS) Asked(name string) (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for asked, times := range d.asked {
		if asked == name || strings.HasPrefix(asked, name+".") {
			n += times
		}
	}
	return n
}

// startDNS answers on the node's address, over UDP and TCP.
func startDNS() (*DNS, error) {
	d := &DNS{asked: make(map[string]int)}
	udp, err := net.ListenPacket("udp", NodeAddress+":53")
	if err != nil {
		return nil, fmt.Errorf("start the name server: %w", err)
	}
	tcp, err := net.Listen("tcp", NodeAddress+":53")
	if err != nil {
		return nil, fmt.Errorf("start the name server: %w", err)
	}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := udp.ReadFrom(buf)
			if err != nil {
				return
			}
			if answer := d.answer(buf[:n]); answer != nil {
				_, _ = udp.WriteTo(answer, from)
			}
		}
	}()
	go func() {
		for {
			c, err := tcp.Accept()
			if err != nil {
				return
			}
			go d.serveTCP(c)
		}
	}()
	return d, nil
}

func (d *DNS) serveTCP(c net.Conn) {
	defer c.Close()
	for {
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		var size [2]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		question := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(c, question); err != nil {
			return
		}
		answer := d.answer(question)
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil {
			return
		}
	}
}

// answer is the reply to a question, nil to something that is none.
func (d *DNS) answer(question []byte) []byte {
	var m dnsmessage.Message
	if m.Unpack(question) != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	name := strings.ToLower(strings.TrimSuffix(q.Name.String(), "."))
	d.mu.Lock()
	d.asked[name]++
	d.mu.Unlock()
	reply := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: m.ID, Response: true, Authoritative: true, RecursionDesired: m.RecursionDesired, RecursionAvailable: true},
		Questions: m.Questions,
	}
	addrs, known := world.Hosts[name]
	if !known {
		reply.RCode = dnsmessage.RCodeNameError
	}
	for _, a := range addrs {
		addr := netip.MustParseAddr(a)
		head := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 5}
		switch {
		case addr.Is4() && q.Type == dnsmessage.TypeA:
			reply.Answers = append(reply.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.AResource{A: addr.As4()}})
		case addr.Is6() && q.Type == dnsmessage.TypeAAAA:
			reply.Answers = append(reply.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.AAAAResource{AAAA: addr.As16()}})
		}
	}
	packed, err := reply.Pack()
	if err != nil {
		return nil
	}
	return packed
}
