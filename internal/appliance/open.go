package appliance

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/quayctl/quayctl/internal/clock"
)

// OpenForInstall makes the data directory if need be and opens its journal. The caller holds the lock and closes the journal.
func OpenForInstall(l Layout, c clock.Clock) (*Journal, error) {
	dirs, err := missing(l.Data)
	if err != nil {
		return nil, err
	}
	for _, d := range dirs {
		mode := os.FileMode(0o755)
		if d == l.Data {
			mode = 0o700
		}
		if err := makeDir(d, mode); err != nil {
			return nil, err
		}
	}
	j, err := OpenJournal(l.JournalFile(), c)
	if err != nil {
		return nil, err
	}
	for _, d := range dirs {
		if err := j.Creating(Resource{Kind: Dir, Name: d, Keep: true}); err != nil {
			return nil, errors.Join(err, j.Close())
		}
	}
	return j, nil
}

// Absent lists the directories of the layout, and those above them, that do not exist. It is asked for before Podman runs for
// the first time: what Podman makes on the way is there because of the installation, and goes with it if it is empty then.
func Absent(l Layout) ([]string, error) {
	var all []string
	for _, d := range []string{l.Config, filepath.Dir(l.Quadlets), l.Wants, l.Trust, filepath.Dir(l.Binary)} {
		dirs, err := missing(d)
		if err != nil {
			return nil, err
		}
		all = append(all, dirs...)
	}
	return all, nil
}
