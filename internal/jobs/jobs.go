// Package jobs composes workers, the daemon that does what no request waits for.
package jobs

import (
	"io"

	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/config"
	"github.com/quayctl/quayctl/internal/jobs/migrate"
	"github.com/quayctl/quayctl/internal/service"
)

const name = "workers"

// Main runs workers with its command line and returns the exit code. `workers migrate` looks after the database and ends.
func Main(args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 && args[0] == "migrate" {
		return migrate.Main(args[1:], stdout, stderr)
	}
	flags := service.NewFlags(name)
	if code, done := flags.Parse(args, stdout, stderr); done {
		return code
	}
	log := flags.Logger(stderr)
	cfg, err := config.Load(flags.ConfigDir)
	if err == nil {
		err = cfg.Validate().Err()
	}
	if err != nil {
		log.Error("configuration is not usable", "config_dir", flags.ConfigDir, "error", err)
		return service.ExitFailure
	}
	daemon := &service.Daemon{Name: name, Log: log, Clock: clock.Real{}, Admin: flags.Admin}
	return daemon.Main()
}
