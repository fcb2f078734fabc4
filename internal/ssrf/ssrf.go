// Package ssrf keeps requests to addresses that users have chosen (upstream registries, their token services, redirects)
// out of private networks. The rules and texts are the legacy server's (contract, vectors/ssrf.json); unlike it, Dial looks
// at the very address that is connected to, so that a name cannot resolve to another one after the check.
package ssrf

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
)

// BlockedError is an address or name that may not be called.
type BlockedError struct{ Reason string }

// Error implements error.
func (e *BlockedError) Error() string { return e.Reason }

// InvalidError is an address that makes no sense, or that does not resolve.
type InvalidError struct{ Reason string }

// Error implements error.
func (e *InvalidError) Error() string { return e.Reason }

func blocked(format string, args ...any) error {
	return &BlockedError{Reason: fmt.Sprintf(format, args...)}
}
func invalid(format string, args ...any) error {
	return &InvalidError{Reason: fmt.Sprintf(format, args...)}
}

// Resolver looks up the addresses of a host. net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Guard decides what may be called. It is safe for concurrent use.
type Guard struct {
	resolver    Resolver
	hosts       map[string]bool
	networks    []netip.Prefix
	refused     []netip.Prefix
	refusedName map[string]bool
}

// New makes a Guard. allowed are host names, addresses and networks that are exempt (SSRF_ALLOWED_HOSTS); an exempt name is
// exempt wherever it resolves to.
func New(allowed []string, resolver Resolver) *Guard {
	g := &Guard{resolver: resolver, hosts: map[string]bool{}, refusedName: map[string]bool{}}
	for _, text := range allowed {
		text = canonical(text)
		if network, err := netip.ParsePrefix(text); err == nil {
			g.networks = append(g.networks, network.Masked())
		} else if address, err := netip.ParseAddr(text); err == nil {
			g.networks = append(g.networks, netip.PrefixFrom(address, address.BitLen()))
		} else {
			g.hosts[text] = true
		}
	}
	for _, text := range []string{
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
		"192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
		"::1/128", "64:ff9b::/96", "100::/64", "2001:db8::/32", "fc00::/7", "fe80::/10", "::ffff:0:0/96",
		// Not in the legacy list: the unspecified address reaches the machine itself, multicast its neighbours.
		"::/128", "ff00::/8",
	} {
		g.refused = append(g.refused, netip.MustParsePrefix(text))
	}
	for _, name := range []string{
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost", "metadata",
		"metadata.azure.internal", "metadata.google.internal",
	} {
		g.refusedName[name] = true
	}
	return g
}

func canonical(host string) string { return strings.TrimSuffix(strings.ToLower(host), ".") }

// CheckURL tells whether a URL may be called, in the words for the one who entered it.
func (g *Guard) CheckURL(ctx context.Context, text string) error {
	if text == "" {
		return invalid("External registry URL is required")
	}
	u, err := url.Parse(text)
	if err != nil {
		return invalid("Invalid URL: %v", err)
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return invalid("Invalid URL scheme '%s': only HTTP and HTTPS are allowed", u.Scheme)
	case u.User != nil:
		return invalid("URLs with embedded credentials are not allowed")
	case u.Hostname() == "":
		return invalid("URL must include a hostname")
	}
	return g.checkHost(ctx, u.Hostname())
}

// CheckReference tells whether the registry of HOST[:PORT]/REPOSITORY may be called.
func (g *Guard) CheckReference(ctx context.Context, text string) error {
	switch {
	case text == "":
		return invalid("External registry reference is required")
	case strings.Contains(text, "://"):
		return invalid("External registry reference must not include a URL scheme")
	}
	host, _, ok := strings.Cut(text, "/")
	if !ok {
		return invalid("External registry reference must include a repository path")
	}
	return g.CheckURL(ctx, "https://"+host)
}

func (g *Guard) checkHost(ctx context.Context, host string) error {
	done, err := g.checkName(host)
	if done || err != nil {
		return err
	}
	addresses, err := g.resolver.LookupNetIP(ctx, "ip", host)
	if err != nil || len(addresses) == 0 {
		return invalid("Cannot resolve hostname '%s'", host)
	}
	for _, address := range addresses {
		if !g.permits(address.Unmap()) {
			return blocked("URL resolves to a private or reserved IP address")
		}
	}
	return nil
}

// checkName judges what can be judged without looking the name up; done says that this was all.
func (g *Guard) checkName(host string) (done bool, err error) {
	name := canonical(host)
	if address, err := netip.ParseAddr(name); err == nil {
		if !g.permits(address) {
			return true, blocked("URL points to a private or reserved IP address")
		}
		return true, nil
	}
	switch {
	case g.hosts[name]:
		return true, nil
	case g.refusedName[name]:
		return true, blocked("Hostname '%s' is not allowed", name)
	}
	return false, nil
}

func (g *Guard) permits(address netip.Addr) bool {
	address = address.WithZone("")
	for _, network := range g.networks {
		if network.Contains(address) {
			return true
		}
	}
	for _, network := range g.refused {
		// A prefix of mapped IPv4 addresses contains none in netip's eyes, which unmaps neither side.
		if network.Contains(address) || address.Is4In6() {
			return false
		}
	}
	return true
}

// Dial makes a dial function for http.Transport that connects only where the rules permit. Its refusals are *BlockedError.
func (g *Guard) Dial(dialer net.Dialer) func(ctx context.Context, network, address string) (net.Conn, error) {
	guarded := dialer
	guarded.ControlContext = func(_ context.Context, _, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("check address %q: %w", address, err)
		}
		if !g.permits(to.Addr().Unmap()) {
			return blocked("URL resolves to a private or reserved IP address")
		}
		return nil
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, invalid("Invalid address %q: %v", address, err)
		}
		if done, err := g.checkName(host); err != nil {
			return nil, err
		} else if done {
			return dialer.DialContext(ctx, network, address)
		}
		return guarded.DialContext(ctx, network, address)
	}
}
