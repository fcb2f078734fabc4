package pagetoken

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"reflect"
	"testing"
	"time"

	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/pyjson"
)

func TestVectors(t *testing.T) {
	text, err := os.ReadFile("testdata/page-tokens.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Key     string
		Vectors []struct {
			Value json.RawMessage
			Time  int64
			IV    string `json:"iv_hex"`
			Token string
		}
		Invalid []struct{ Token string }
	}
	if err := json.Unmarshal(text, &golden); err != nil {
		t.Fatal(err)
	}
	clk := clock.NewFake(time.Unix(0, 0))
	c, err := New(golden.Key, clk)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range golden.Vectors {
		clk.Advance(time.Unix(v.Time, 0).Sub(clk.Now()))
		iv, _ := hex.DecodeString(v.IV)
		c.random = bytes.NewReader(iv)
		// The golden file spells the value as the legacy server does.
		token, err := c.Encode(string(v.Value))
		if err != nil || token != v.Token {
			t.Errorf("%s: got %s, want %s (%v)", v.Value, token, v.Token, err)
		}
		clk.Advance(10 * time.Second)
		var got, want any
		_ = json.Unmarshal(v.Value, &want)
		if !c.Decode(v.Token, &got) || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: decoded %v", v.Value, got)
		}
		clk.Advance(TTL)
		if c.Decode(v.Token, &got) {
			t.Errorf("%s: decoded after its time", v.Value)
		}
	}
	for _, v := range golden.Invalid {
		var got any
		if c.Decode(v.Token, &got) {
			t.Errorf("%q: decoded", v.Token)
		}
	}
	if _, err := New("short", clk); err == nil {
		t.Error("a short key is accepted")
	}
	spaced, err := pyjson.Spaced(map[string]any{"start_id": 51})
	if err != nil || string(spaced) != `{"start_id": 51}` {
		t.Errorf("%s %v", spaced, err)
	}
}

func TestEveryFlippedBitIsRefused(t *testing.T) {
	c, err := New("0OYrc16oBuksR8T3JGB-xxYSlZ2-7I_zzqrLzggBJ58=", clock.Real{})
	if err != nil {
		t.Fatal(err)
	}
	token, err := c.Encode(`{"start_id": 1}`)
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(token) - 2 { // the last characters are padding
		var got any
		broken := []byte(token)
		broken[i] ^= 1
		if c.Decode(string(broken), &got) {
			t.Errorf("decoded with byte %d changed", i)
		}
	}
}
