// Command workers does everything that no request waits for, and migrates the database.
package main

import (
	"os"

	"github.com/quayctl/quayctl/internal/jobs"
)

func main() { os.Exit(jobs.Main(os.Args[1:], os.Stdout, os.Stderr)) }
