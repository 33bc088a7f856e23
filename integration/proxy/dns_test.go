//go:build unix

package proxy_test

import (
	"errors"
	"net"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// nameServer answers every question for IPv4 addresses with the same ones, and every
// other with none.
type nameServer [][4]byte

// startDNS returns where the name server listens.
func startDNS(t *testing.T, addresses ...[4]byte) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- nameServer(addresses).serve(conn) }()
	t.Cleanup(func() {
		conn.Close()
		if err := <-served; !errors.Is(err, net.ErrClosed) {
			t.Errorf("the name server ended with %v", err)
		}
	})
	return conn.LocalAddr().String()
}

func (n nameServer) serve(conn net.PacketConn) error {
	buf := make([]byte, 1500)
	for {
		size, from, err := conn.ReadFrom(buf)
		if err != nil {
			return err
		}
		answer, err := n.answer(buf[:size])
		if err != nil {
			return err
		}
		if _, err := conn.WriteTo(answer, from); err != nil {
			return err
		}
	}
}

func (n nameServer) answer(question []byte) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(question); err != nil {
		return nil, err
	}
	m.Header = dnsmessage.Header{ID: m.ID, Response: true, Authoritative: true}
	m.Additionals = nil
	for _, q := range m.Questions {
		if q.Type != dnsmessage.TypeA {
			continue
		}
		for _, a := range n {
			m.Answers = append(m.Answers, dnsmessage.Resource{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 60},
				Body:   &dnsmessage.AResource{A: a},
			})
		}
	}
	return m.Pack()
}
