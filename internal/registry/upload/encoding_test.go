package upload

import (
	"encoding/base64"
	"testing"
)

func decode(t *testing.T, text []byte) []byte {
	t.Helper()
	p, err := base64.StdEncoding.DecodeString(string(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func encode(p []byte) string { return base64.StdEncoding.EncodeToString(p) }

func clamp(n, limit int) int { return max(0, min(n, limit)) }
