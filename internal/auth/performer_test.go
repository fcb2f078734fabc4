package auth

import (
	"encoding/json"
	"testing"
)

// TestAccessTokenWithoutName: the action log of the legacy server has a null there.
func TestAccessTokenWithoutName(t *testing.T) {
	name := "builder"
	for want, friendly := range map[string]*string{`{"token":null}`: nil, `{"token":"builder"}`: &name} {
		got, err := json.Marshal(AccessTokenPerformer(friendly).Metadata)
		if err != nil || string(got) != want {
			t.Errorf("%s, %v, want %s", got, err, want)
		}
	}
}
