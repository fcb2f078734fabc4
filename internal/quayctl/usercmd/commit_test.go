package usercmd

import (
	"path/filepath"
	"testing"
)

// TestNoUserWithoutPassword: when the password cannot be left in its file, nothing has changed.
func TestNoUserWithoutPassword(t *testing.T) {
	m := newMachine(t)
	if err := m.run("create", "alice", "--email", "alice@example.com", "--password-file", filepath.Join(m.home, "alice")); err != nil {
		t.Fatal(err)
	}
	before := m.hash("alice")
	if err := m.run("create", "bob", "--email", "bob@example.com", "--password-file", m.home); err == nil || m.users() != 1 {
		t.Errorf("create: %v; %d users", err, m.users())
	}
	if err := m.run("reset-password", "alice", "--password-file", m.home); err == nil || m.hash("alice") != before {
		t.Errorf("reset-password: %v", err)
	}
}
