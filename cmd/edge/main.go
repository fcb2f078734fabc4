// Command edge is the only process of the appliance that the outside reaches.
package main

import (
	"os"

	"github.com/quayctl/quayctl/internal/edge"
)

func main() { os.Exit(edge.Main(os.Args[1:], os.Stdout, os.Stderr)) }
