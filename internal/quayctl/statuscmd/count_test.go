package statuscmd

import "testing"

func TestCount(t *testing.T) {
	for n, want := range map[int64]string{0: "0 repositories", 1: "1 repository", 2: "2 repositories"} {
		if got := count(n, "repository", "repositories"); got != want {
			t.Errorf("count(%d) = %q, want %q", n, got, want)
		}
	}
}
