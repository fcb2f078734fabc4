//go:build cosign

package bundle

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestCosign has the real cosign verify what we signed, offline, and refuse what was altered.
func TestCosign(t *testing.T) {
	cosign, err := exec.LookPath("cosign")
	if err != nil {
		t.Fatalf("%v: run make test-cosign, which builds it", err)
	}
	f := newFixture(t)
	dir := readBundle(t, f.tar).unpack(t)
	pem, err := EncodePublicKey(&f.key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(dir, "key.pub")
	if err := os.WriteFile(key, pem, 0o600); err != nil {
		t.Fatal(err)
	}
	manifest := filepath.Join(dir, ManifestName)
	verify := func() error {
		out, err := exec.CommandContext(t.Context(), cosign, "verify-blob", "--key", key, "--signature", filepath.Join(dir, SignatureName), "--insecure-ignore-tlog", manifest).CombinedOutput()
		t.Logf("%s", out)
		return err
	}
	if err := verify(); err != nil {
		t.Errorf("cosign refuses our signature: %v", err)
	}
	b, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(manifest, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := verify(); err == nil {
		t.Error("cosign accepts an altered manifest")
	}
}
