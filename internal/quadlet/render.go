package quadlet

import (
	"bytes"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Names of the plain units. Containers and their units are called quay-<component>[-<slot>].
const (
	Prefix     = "quay-"
	TargetName = "quay.target"
	SocketName = "quay-edge.socket"
)

// Version is a Podman version of which only what rendering depends on is kept.
type Version struct{ Major, Minor, Patch int }

var versionPattern = regexp.MustCompile(`^v?(\d+)\.(\d+)(?:\.(\d+))?`)

// ParseVersion reads versions such as 4.9.4-rhel or 5.4.2.
func ParseVersion(s string) (Version, error) {
	m := versionPattern.FindStringSubmatch(s)
	if m == nil {
		return Version{}, fmt.Errorf("version %q does not begin with MAJOR.MINOR", s)
	}
	var v Version
	for i, n := range []*int{&v.Major, &v.Minor, &v.Patch} {
		if m[i+1] == "" {
			continue
		}
		var err error
		if *n, err = strconv.Atoi(m[i+1]); err != nil {
			return Version{}, fmt.Errorf("version %q: %w", s, err)
		}
	}
	return v, nil
}

// AtLeast tells whether v is major.minor or newer.
func (v Version) AtLeast(major, minor int) bool {
	return v.Major > major || v.Major == major && v.Minor >= minor
}

// Input is everything that units are rendered from. The same input gives the same bytes.
type Input struct {
	Components  []*Component
	Images      map[string]string // image ID (64 hexadecimal digits, with or without sha256:) by component
	DataDir     string            // absolute
	Rootless    bool
	Listen      []string // of the public socket, as ListenStream= takes it: "8443", "192.0.2.1:8443"
	Slot        string   // of each component with slots, the one that runs; "a" when empty
	Podman      Version
	Controllers []string // cgroup controllers that containers can use, from Podman's system info
	SELinux     bool     // enabled
}

// Render gives the units of an installation, in order of their names.
func Render(in Input) ([]*Unit, error) {
	if !path.IsAbs(in.DataDir) || strings.ContainsAny(in.DataDir, " \t\n:%\\\"'$,") {
		return nil, fmt.Errorf("render units: data directory %q: use an absolute path without blanks and without any of : %% \\ \" ' $ ,", in.DataDir)
	}
	if in.Slot == "" {
		in.Slot = "a"
	}
	r := renderer{in}
	var units []*Unit
	for _, c := range in.Components {
		id := strings.TrimPrefix(in.Images[c.Image], "sha256:")
		if len(id) != 64 {
			return nil, fmt.Errorf("render unit of %s: there is no image %s (ID %q)", c.Name, c.Image, id)
		}
		if len(c.Slots) == 0 {
			units = append(units, r.container(c, "", id))
			continue
		}
		if !slices.Contains(c.Slots, in.Slot) {
			return nil, fmt.Errorf("render unit of %s: slot %q is none of %s", c.Name, in.Slot, strings.Join(c.Slots, ", "))
		}
		for _, slot := range c.Slots {
			units = append(units, r.container(c, slot, id))
		}
	}
	units = append(units, r.target())
	if slices.ContainsFunc(in.Components, func(c *Component) bool { return c.Socket }) {
		if len(in.Listen) == 0 {
			return nil, fmt.Errorf("render unit %s: no address to listen on", SocketName)
		}
		units = append(units, r.socket())
	}
	for _, u := range units {
		if err := u.Validate(); err != nil {
			return nil, fmt.Errorf("render units: %w", err)
		}
	}
	slices.SortFunc(units, func(a, b *Unit) int { return strings.Compare(a.Name, b.Name) })
	return units, nil
}

type renderer struct{ in Input }

// Rendered tells whether the text of a unit was rendered by this package, now or in an earlier release.
func Rendered(unit []byte) bool { return bytes.Contains(unit, []byte(mark)) }

// Service is the name of the systemd unit of a component, or of a slot of it.
func Service(component, slot string) string { return containerName(component, slot) + ".service" }

func containerName(component, slot string) string {
	if slot == "" {
		return Prefix + component
	}
	return Prefix + component + "-" + slot
}

const (
	mark      = "# Rendered by quayctl."
	head      = mark + " Changes made here are lost; drop-ins in the directory UNIT.d are kept."
	docs      = "https://github.com/quayctl/quayctl"
	killGrace = 15 // seconds systemd waits beyond the container's own stop timeout
)

func (r renderer) container(c *Component, slot, image string) *Unit {
	name := containerName(c.Name, slot)
	u := &Unit{Name: name + ".container"}

	unit := u.Section("Unit")
	unit.Entries = append(unit.Entries, Entry{Comments: []string{head}, Key: "Description", Value: c.Description})
	if slot != "" {
		unit.Set("Description", c.Description+", slot "+slot)
	}
	unit.Add("Documentation", docs)
	unit.AddCommented("Stops and restarts with the whole appliance.", "PartOf", TargetName)
	for _, other := range c.Requires {
		unit.Add("Requires", Service(other, ""))
		unit.Add("After", Service(other, ""))
	}
	for _, other := range c.Wants {
		unit.Add("Wants", Service(other, ""))
		unit.Add("After", Service(other, ""))
	}
	if c.Socket {
		unit.Add("Requires", SocketName)
		unit.Add("After", SocketName)
	}
	unit.AddCommented("Never give up: with the default limit five quick restarts would end it, and its socket, for good.", "StartLimitIntervalSec", "0")

	ctr := u.Section("Container")
	ctr.Add("ContainerName", name)
	ctr.AddCommented("By ID, which is a digest of the image's content: no tag can change what runs.", "Image", image)
	ctr.Add("Pull", "never")
	if len(c.Exec) > 0 {
		args := make([]string, len(c.Exec))
		for i, a := range c.Exec {
			args[i] = strings.ReplaceAll(a, "{slot}", slot)
		}
		ctr.Add("Exec", strings.Join(args, " "))
	}
	ctr.Add("User", strconv.Itoa(c.User))
	ctr.Add("Group", strconv.Itoa(c.User))
	ctr.Add("Network", "none")
	ctr.Add("ReadOnly", "true")
	ctr.Add("ReadOnlyTmpfs", "false")
	if c.Tmp != "" {
		ctr.Add("Tmpfs", "/tmp:size="+c.Tmp+",mode=1777")
	}
	ctr.Add("NoNewPrivileges", "true")
	ctr.Add("DropCapability", "all")
	switch {
	case !r.in.Rootless:
		if r.in.SELinux {
			ctr.AddCommented("With a level of its own, new at each start, it could not reach the others' sockets, nor after a restart its own files.", "SecurityLabelLevel", "s0")
		}
		ctr.AddCommented("What the program writes is the unit's own output.", "LogDriver", "passthrough")
	case c.Oneshot:
		ctr.AddCommented("Podman itself passes on what the program writes: a user may read the journal of processes of his own alone.", "LogDriver", "none")
	default:
		ctr.AddCommented("Written by a process of the user's: the journal of the program's own user is not his to read.", "LogDriver", "journald")
	}
	if c.Notify {
		ctr.Add("Notify", "true")
	}
	for _, k := range slices.Sorted(maps.Keys(c.Environment)) {
		ctr.Add("Environment", k+"="+c.Environment[k])
	}
	if c.Watchdog > 0 {
		ctr.AddCommented("Podman does not pass the variable on.", "Environment", fmt.Sprintf("WATCHDOG_USEC=%d", c.Watchdog*1_000_000))
	}
	for _, m := range c.Mounts {
		v := path.Join(r.in.DataDir, m.From) + ":" + m.To
		if m.ReadOnly {
			v += ":ro"
		}
		ctr.Add("Volume", v)
	}
	if c.Limits.Pids > 0 && slices.Contains(r.in.Controllers, "pids") {
		ctr.Add("PidsLimit", strconv.Itoa(c.Limits.Pids))
	}
	if c.Limits.Memory != "" && slices.Contains(r.in.Controllers, "memory") {
		ctr.Add("PodmanArgs", "--memory="+c.Limits.Memory)
	}
	stop := strconv.Itoa(c.Stop)
	const why = "The stop command kills after this time, whatever TimeoutStopSec says."
	if r.in.Podman.AtLeast(5, 0) {
		ctr.AddCommented(why, "StopTimeout", stop)
	} else {
		ctr.AddCommented(why, "PodmanArgs", "--stop-timeout="+stop)
	}

	service := u.Section("Service")
	if c.Socket {
		service.Add("Sockets", SocketName)
	}
	if c.Oneshot {
		service.Add("Type", "oneshot")
		service.Add("RemainAfterExit", "yes")
	} else {
		service.Add("Restart", "always")
		service.Add("RestartSec", "1")
	}
	service.Add("TimeoutStartSec", c.Start)
	service.Add("TimeoutStopSec", strconv.Itoa(c.Stop+killGrace))
	if c.Watchdog > 0 {
		service.Add("WatchdogSec", strconv.Itoa(c.Watchdog))
	}
	if r.in.Podman.AtLeast(5, 3) {
		q := u.Section("Quadlet")
		q.AddCommented("Nothing here uses a network: a machine without one starts at once.", "DefaultDependencies", "false")
	}
	return u
}

func (r renderer) target() *Unit {
	u := &Unit{Name: TargetName}
	s := u.Section("Unit")
	s.Entries = append(s.Entries, Entry{Comments: []string{head}, Key: "Description", Value: "Quay container registry"})
	s.Add("Documentation", docs)
	for _, c := range r.in.Components {
		slot := ""
		if len(c.Slots) > 0 {
			slot = r.in.Slot
		}
		if c.Socket {
			s.Add("Wants", SocketName)
		}
		s.Add("Wants", Service(c.Name, slot))
	}
	wanted := "multi-user.target"
	if r.in.Rootless {
		wanted = "default.target"
	}
	u.Section("Install").Add("WantedBy", wanted)
	return u
}

func (r renderer) socket() *Unit {
	u := &Unit{Name: SocketName}
	s := u.Section("Unit")
	s.Entries = append(s.Entries, Entry{Comments: []string{head}, Key: "Description", Value: "Quay public socket"})
	s.Add("Documentation", docs)
	s.Add("PartOf", TargetName)
	socket := u.Section("Socket")
	for _, l := range r.in.Listen {
		socket.Add("ListenStream", l)
	}
	socket.AddCommented("Connections wait here while the front door restarts.", "Backlog", "4096")
	for _, c := range r.in.Components {
		if c.Socket {
			slot := ""
			if len(c.Slots) > 0 {
				slot = r.in.Slot
			}
			socket.Add("Service", Service(c.Name, slot))
		}
	}
	return u
}
