package bundle

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// spdxNames maps the short names that Debian's machine-readable copyright files use
// (https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/) to SPDX identifiers, where the meaning is the same.
var spdxNames = map[string]string{
	"apache-2.0": "Apache-2.0", "artistic": "Artistic-1.0", "artistic-2.0": "Artistic-2.0",
	"bsd-2-clause": "BSD-2-Clause", "bsd-3-clause": "BSD-3-Clause", "bsd-4-clause": "BSD-4-Clause", "bsl-1.0": "BSL-1.0",
	"cc0-1.0": "CC0-1.0", "expat": "MIT", "mit": "MIT", "isc": "ISC", "zlib": "Zlib", "x11": "X11", "curl": "curl", "openssl": "OpenSSL",
	"postgresql": "PostgreSQL", "unicode-dfs-2016": "Unicode-DFS-2016", "unicode": "Unicode-DFS-2016", "0bsd": "0BSD",
	"gpl-1": "GPL-1.0-only", "gpl-1+": "GPL-1.0-or-later", "gpl-2": "GPL-2.0-only", "gpl-2.0": "GPL-2.0-only", "gpl-2+": "GPL-2.0-or-later", "gpl-2.0+": "GPL-2.0-or-later",
	"gpl-3": "GPL-3.0-only", "gpl-3+": "GPL-3.0-or-later", "gpl-3.0+": "GPL-3.0-or-later",
	"lgpl-2": "LGPL-2.0-only", "lgpl-2+": "LGPL-2.0-or-later", "lgpl-2.0+": "LGPL-2.0-or-later", "lgpl-2.1": "LGPL-2.1-only", "lgpl-2.1+": "LGPL-2.1-or-later",
	"lgpl-3": "LGPL-3.0-only", "lgpl-3+": "LGPL-3.0-or-later", "lgpl-3.0+": "LGPL-3.0-or-later",
	"gfdl-1.3+": "GFDL-1.3-or-later",
}

// debianLicense gives the SPDX expression of all licences that the copyright file of a package names. One that SPDX has no
// identifier for is referred to by the package's copyright file, as is the whole package if the file is not machine-readable.
func (s *sbom) debianLicense(p debPackage) string {
	ids := map[string]bool{}
	text := string(p.copyright)
	whole := func() string {
		return s.extract("LicenseRef-Debian-"+idPart(p.name), "copyright file of "+p.name, text)
	}
	if !strings.HasPrefix(strings.TrimLeft(text, "\n"), "Format:") {
		return whole()
	}
	for line := range strings.Lines(text) {
		names, ok := strings.CutPrefix(strings.TrimSpace(line), "License:")
		if !ok || line[0] == ' ' {
			continue
		}
		names = strings.ToLower(strings.TrimSpace(names))
		for _, sep := range []string{" and/or ", " or ", " and ", ", ", " | "} {
			names = strings.ReplaceAll(names, sep, "\n")
		}
		for name := range strings.SplitSeq(names, "\n") {
			name, _, _ = strings.Cut(strings.Trim(name, " ,"), " with ")
			if name == "" {
				continue
			}
			if id, ok := spdxNames[name]; ok {
				ids[id] = true
			} else {
				ids[whole()] = true
			}
		}
	}
	if len(ids) == 0 {
		return whole()
	}
	return strings.Join(slices.Sorted(maps.Keys(ids)), " AND ")
}

func (s *sbom) extract(id, name, text string) string {
	s.extracts[id] = spdxLicense{ID: id, Name: name, Text: text}
	return id
}

func idPart(s string) string {
	return strings.TrimPrefix(spdxID(strings.ReplaceAll(s, "+", fmt.Sprintf("%x", '+'))), "SPDXRef-")
}
