package service

import (
	"crypto/fips140"
	"runtime"
	"runtime/debug"
)

// version is set by the linker: -X github.com/quayctl/quayctl/internal/service.version=1.2.3.
var version string

// BuildVersion is the product version the linker was given, else the module version or the commit that
// the build recorded, else "devel".
func BuildVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	if rev := buildSetting(info, "vcs.revision"); rev != "" {
		return "devel-" + rev
	}
	return "devel"
}

func buildSetting(info *debug.BuildInfo, key string) string {
	for _, s := range info.Settings {
		if s.Key == key {
			return s.Value
		}
	}
	return ""
}

// Version is the answer of /version.
type Version struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Go      string `json:"go"`
	Arch    string `json:"arch"`
	// FIPS tells whether this process runs with the approved cryptographic module only.
	FIPS bool `json:"fips"`
}

func (d *Daemon) version() Version {
	return Version{Name: d.Name, Version: d.Version, Go: runtime.Version(), Arch: runtime.GOARCH, FIPS: fips140.Enabled()}
}
