// Postgresql is the entrypoint of the PostgreSQL image.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/quayctl/quayctl/internal/pgstart"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err := pgstart.Run(ctx, pgstart.New(os.Args[1:], os.Environ(), slog.New(slog.NewTextHandler(os.Stderr, nil))))
	fmt.Fprintln(os.Stderr, "quay-postgresql:", err)
	os.Exit(1)
}
