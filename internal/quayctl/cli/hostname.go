package cli

import (
	"errors"
	"net/netip"
	"regexp"
)

// dnsName is a DNS name, RFC 1123. An underscore is refused with good reason: names of images may not have one there.
var dnsName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$`)

// maxName is the longest DNS name in bytes, RFC 1035 2.3.4.
const maxName = 253

// ValidHostname tells what is wrong with s as the name or address under which clients reach the registry; nil if nothing is.
func ValidHostname(s string) error {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return nil
	}
	if len(s) > maxName || !dnsName.MatchString(s) {
		return errors.New("give a DNS name or an IP address, without a scheme or a port")
	}
	return nil
}
