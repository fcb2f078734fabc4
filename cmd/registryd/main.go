// Command registryd is the registry: it speaks the distribution protocol.
package main

import (
	"os"

	"github.com/quayctl/quayctl/internal/registry"
)

func main() { os.Exit(registry.Main(os.Args[1:], os.Stdout, os.Stderr)) }
