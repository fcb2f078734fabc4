package quadlet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ValidationError is what a generator or systemd-analyze holds against units.
type ValidationError struct {
	Tool   string
	Output string // as the tool wrote it, trimmed
	Err    error
}

// Error implements error.
func (e *ValidationError) Error() string {
	return fmt.Sprintf("validate units with %s: %v\n%s", e.Tool, e.Err, e.Output)
}

// Unwrap gives the tool's failure.
func (e *ValidationError) Unwrap() error { return e.Err }

// WriteUnits writes each unit as a file (0644) in dir, which must exist, without syncing.
func WriteUnits(dir string, units []*Unit) error {
	for _, u := range units {
		if err := os.WriteFile(filepath.Join(dir, u.Name), []byte(u.String()), 0o644); err != nil {
			return fmt.Errorf("write unit: %w", err)
		}
	}
	return nil
}

// ReadUnits reads the unit files of dir that this package writes, in order of their names.
func ReadUnits(dir string) ([]*Unit, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read units: %w", err)
	}
	var units []*Unit
	for _, e := range entries {
		switch filepath.Ext(e.Name()) {
		case ".container", ".socket", ".target":
		default:
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, fmt.Errorf("read units: %w", err)
		}
		u, err := Parse(e.Name(), string(b))
		if err != nil {
			return nil, err
		}
		units = append(units, u)
	}
	return units, nil
}

// Generate runs Podman's generator (the path of the program) on the quadlets in dir and returns the services it makes of
// them. It fails with a *ValidationError on any unit that the generator does not take as it stands.
func Generate(ctx context.Context, generator, dir string, rootless bool) ([]*Unit, error) {
	args := []string{"--dryrun"}
	if rootless {
		args = append(args, "--user")
	}
	cmd := exec.CommandContext(ctx, generator, args...)
	cmd.Env = append(os.Environ(), "QUADLET_UNIT_DIRS="+dir)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, &ValidationError{Tool: generator, Output: complaints(errs.String()), Err: err}
	}
	var units []*Unit
	for _, part := range strings.Split("\n"+out.String(), "\n---")[1:] {
		name, text, _ := strings.Cut(part, "\n")
		u, err := Parse(strings.TrimSuffix(name, "---"), text)
		if err != nil {
			return nil, err
		}
		units = append(units, u)
	}
	want, err := ReadUnits(dir)
	if err != nil {
		return nil, err
	}
	for _, u := range want {
		if u.IsQuadlet() && find(units, u.Service()) == nil {
			return nil, &ValidationError{Tool: generator, Output: complaints(errs.String()), Err: errors.New("it makes no service of " + u.Name)}
		}
	}
	return units, nil
}

// complaints leaves out what the generator says about its own progress.
func complaints(s string) string {
	var kept []string
	for _, line := range strings.Split(strings.TrimSpace(s), "\n") {
		if !strings.Contains(line, "Loading source unit file") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "\n")
}

// Verify runs systemd-analyze verify on units, generated services and plain units alike, in dir, which it makes anew and
// removes: what a killed process has left there goes with the next.
func Verify(ctx context.Context, dir string, units []*Unit, rootless bool) error {
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil {
		return fmt.Errorf("verify units: %w", err)
	}
	defer os.RemoveAll(dir)
	if err := WriteUnits(dir, units); err != nil {
		return err
	}
	args := []string{"verify", "--man=no"}
	if rootless {
		args = append([]string{"--user"}, args...)
	}
	for _, u := range units {
		args = append(args, filepath.Join(dir, u.Name))
	}
	cmd := exec.CommandContext(ctx, "systemd-analyze", args...)
	cmd.Env = append(os.Environ(), "SYSTEMD_UNIT_PATH="+dir+":")
	out, err := cmd.CombinedOutput()
	var ours []string
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		// Only complaints about these units count, whatever else is wrong on the machine.
		if strings.Contains(line, Prefix) || strings.Contains(line, TargetName) {
			ours = append(ours, line)
		}
	}
	if len(ours) > 0 {
		if err == nil {
			err = errors.New("systemd would ignore a part of them")
		}
		return &ValidationError{Tool: "systemd-analyze verify", Output: strings.Join(ours, "\n"), Err: err}
	}
	return nil
}
