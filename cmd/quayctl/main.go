// Command quayctl installs a container registry on this machine and looks after it.
package main

import (
	"os"

	"github.com/quayctl/quayctl/internal/quayctl"
	"github.com/quayctl/quayctl/internal/quayctl/cli"
)

// Set by the linker.
var version, commit = "dev", ""

func main() { os.Exit(quayctl.Main(cli.Version{Version: version, Commit: commit})) }
