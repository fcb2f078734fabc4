package actionlog

import "net/netip"

// legacyRangesToken is the syncToken of the list of Amazon's address ranges that the legacy server carries; it writes
// it beside every answer that it drew from the list.
const legacyRangesToken = "1645662201"

// ResolveIP is the member resolved_ip of registry events: where an address lies, in the legacy form. It needs no list
// for addresses that cannot be Amazon's (loopback, private, link-local); for all others it says nothing (nil), because
// the lists of ranges and places are not part of this program.
func ResolveIP(ip string) map[string]any {
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return nil
	}
	addr = addr.Unmap()
	if !addr.IsLoopback() && !addr.IsPrivate() && !addr.IsLinkLocalUnicast() {
		return nil
	}
	return map[string]any{"provider": "internet", "service": nil, "sync_token": legacyRangesToken,
		"country_iso_code": nil, "aws_region": nil, "continent": nil}
}
