package ssrf

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
)

type names map[string]string

func (n names) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	text, ok := n[host]
	if !ok {
		return nil, errors.New("no such host")
	}
	return []netip.Addr{netip.MustParseAddr(text)}, nil
}

// legacy words an error as the vectors do.
func legacy(err error) string {
	var b *BlockedError
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &b):
		return "SSRFBlockedError: " + err.Error()
	}
	return "ValueError: " + err.Error()
}

func TestVectors(t *testing.T) {
	text, err := os.ReadFile("testdata/ssrf.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors struct {
		DNS        names
		Networks   []netip.Prefix `json:"blocked_networks"`
		Hosts      []string       `json:"blocked_host_names"`
		URLs       []map[string]string
		References []map[string]string
	}
	if err := json.Unmarshal(text, &vectors); err != nil {
		t.Fatal(err)
	}
	check := func(cases []map[string]string, member string, do func(*Guard, string) error) {
		if len(cases) == 0 {
			t.Errorf("no %s", member)
		}
		for _, c := range cases {
			for key, want := range c {
				list, ok := strings.CutPrefix(key, "allowed ")
				if !ok {
					continue
				}
				var allowed []string
				if err := json.Unmarshal([]byte(list), &allowed); err != nil {
					t.Fatal(err)
				}
				if got := legacy(do(New(allowed, vectors.DNS), c[member])); got != want {
					t.Errorf("%s %q, %s: %s, want %s", member, c[member], key, got, want)
				}
			}
		}
	}
	check(vectors.URLs, "url", func(g *Guard, s string) error { return g.CheckURL(t.Context(), s) })
	check(vectors.References, "reference", func(g *Guard, s string) error { return g.CheckReference(t.Context(), s) })
	g := New(nil, vectors.DNS)
	for _, network := range vectors.Networks {
		if g.permits(network.Addr()) {
			t.Errorf("%s is permitted", network)
		}
	}
	for _, host := range vectors.Hosts {
		for _, spelling := range []string{host, strings.ToUpper(host), host + "."} {
			if _, err := g.checkName(spelling); err == nil {
				t.Errorf("%s is permitted", spelling)
			}
		}
	}
	for _, address := range []string{"::", "ff02::1", "fe80::1%eth0", "::ffff:93.184.216.34"} {
		if g.permits(netip.MustParseAddr(address)) {
			t.Errorf("%s is permitted", address)
		}
	}
}

// The check happens where the connection is made: what the name resolved to before does not matter.
func TestDialChecksTheAddressItConnectsTo(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	// A name server of our own would be asked here; the system knows localhost by itself, and the Guard is told that the
	// name is harmless.
	g := New(nil, names{"localhost": "93.184.216.34"})
	delete(g.refusedName, "localhost")
	if err := g.CheckURL(t.Context(), "http://localhost"); err != nil {
		t.Fatal(err)
	}
	var refused *BlockedError
	for _, host := range []string{"localhost", "127.0.0.1", "::ffff:127.0.0.1"} {
		conn, err := g.Dial(net.Dialer{})(t.Context(), "tcp", net.JoinHostPort(host, port))
		if !errors.As(err, &refused) {
			t.Errorf("%s: %v, %v", host, conn, err)
		}
	}
	for _, allowed := range []string{"localhost", "127.0.0.0/8"} {
		conn, err := New([]string{allowed}, net.DefaultResolver).Dial(net.Dialer{})(t.Context(), "tcp", net.JoinHostPort("127.0.0.1", port))
		if allowed == "127.0.0.0/8" && err != nil {
			t.Errorf("allowed %s: %v", allowed, err)
		}
		if err == nil {
			conn.Close()
		}
	}
	conn, err := New([]string{"localhost"}, net.DefaultResolver).Dial(net.Dialer{})(t.Context(), "tcp", net.JoinHostPort("localhost", port))
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}
