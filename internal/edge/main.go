package edge

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/config"
	"github.com/quayctl/quayctl/internal/service"
)

// Main is the edge's command line; it returns the exit code: 0 after a clean stop, 1 after a failure,
// 2 after a mistake on the command line.
func Main(args []string, stdout, stderr io.Writer) int {
	flags := service.NewFlags("edge")
	o := Options{Storage: map[string]string{}, Clock: clock.Real{}, Metrics: prometheus.NewRegistry()}
	registryd := flags.Set.String("registryd", "unix:/run/quay/registryd.sock", "`address` of registryd")
	flags.Set.StringVar(&o.TLSDir, "tls-dir", "", "`directory` with ssl.cert and ssl.key; without it plain HTTP is spoken")
	flags.Set.StringVar(&o.StorageRoot, "storage-root", "", "`directory` with a directory for each storage location that neither --storage nor config.yaml names")
	flags.Set.Func("storage", "local storage location as `location=directory` (may be repeated)", func(s string) error {
		name, dir, ok := strings.Cut(s, "=")
		if !ok || name == "" || dir == "" {
			return fmt.Errorf("%q is not LOCATION=DIRECTORY", s)
		}
		o.Storage[name] = dir
		return nil
	})
	flags.Set.Func("health", "admin `address` of a component whose health counts, optionally as NAME=ADDRESS (may be repeated)", func(s string) error {
		c, err := parseComponent(s)
		o.Components = append(o.Components, c)
		return err
	})
	flags.Set.BoolVar(&o.AccessLog, "access-log", true, "log each request")
	if code, done := flags.Parse(args, stdout, stderr); done {
		return code
	}
	var err error
	if o.Registryd, err = service.ParseAddr(*registryd); err != nil {
		return flags.Mistake(stderr, "--registryd: "+err.Error())
	}
	o.Log = flags.Logger(stderr)
	cfg, err := loadConfig(flags.ConfigDir)
	if err != nil {
		o.Log.Error("cannot start", "error", err)
		return service.ExitFailure
	}
	cfg.LogWarnings(o.Log)
	addStorage(&o, cfg)
	o.LargestBlob = cfg.MaximumLayerSize.FrontBytes()
	o.TrustForwardedProto = cfg.ExternalTLSTermination
	e, err := New(o)
	if err != nil {
		o.Log.Error("cannot start", "error", err)
		return service.ExitFailure
	}
	d := e.Daemon()
	d.Listen, d.Admin, d.DrainLimit = flags.Listen, flags.Admin, flags.DrainLimit
	return d.Main()
}

// addStorage adds the local locations of config.yaml: the edge sees them under the same paths as registryd
// unless the command line says otherwise.
func addStorage(o *Options, cfg *config.Config) {
	if !cfg.Given("DISTRIBUTED_STORAGE_CONFIG") {
		return
	}
	for _, l := range cfg.Storage {
		if _, named := o.Storage[l.Name]; !named && l.Driver == "LocalStorage" && l.Parameters.Text("storage_path") != "" {
			o.Storage[l.Name] = l.Parameters.Text("storage_path")
		}
	}
}

// loadConfig reads config.yaml; the edge needs no secret and so runs without the file, on the defaults.
func loadConfig(dir string) (*config.Config, error) {
	if _, err := os.Stat(filepath.Join(dir, config.FileName)); errors.Is(err, os.ErrNotExist) {
		return config.Default(), nil
	}
	return config.Load(dir)
}

// parseComponent reads NAME=ADDRESS or ADDRESS, whose name is then that of the socket file without
// "-admin.sock", or the address itself.
func parseComponent(s string) (Component, error) {
	name, text, ok := strings.Cut(s, "=")
	if !ok {
		name, text = "", s
	}
	addr, err := service.ParseAddr(text)
	if err == nil && addr.Network == "systemd" {
		err = fmt.Errorf("address %q cannot be asked: write unix:PATH or tcp:HOST:PORT", text)
	}
	if name == "" {
		name = addr.Address
		if addr.Network == "unix" {
			name = strings.TrimSuffix(strings.TrimSuffix(filepath.Base(addr.Address), ".sock"), "-admin")
		}
	}
	return Component{name, addr}, err
}
