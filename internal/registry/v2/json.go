package v2

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/quayctl/quayctl/internal/pyjson"
	"github.com/quayctl/quayctl/internal/registry/manifest"
)

// orderedObject is a JSON object of labels in their order; nil for none.
func orderedObject(labels []manifest.Label) (json.RawMessage, error) {
	if len(labels) == 0 {
		return nil, nil
	}
	var b bytes.Buffer
	for i, label := range labels {
		separator := byte(',')
		if i == 0 {
			separator = '{'
		}
		key, err := pyjson.Compact(label.Key)
		if err != nil {
			return nil, err
		}
		value, err := pyjson.Compact(label.Value)
		if err != nil {
			return nil, err
		}
		b.WriteByte(separator)
		b.Write(key)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// indented is v in JSON with the three spaces of indentation that the legacy server's manifests have.
func indented(v any) (string, error) {
	compact, err := pyjson.Compact(v)
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	if err := json.Indent(&b, compact, "", "   "); err != nil {
		return "", fmt.Errorf("indent index: %w", err)
	}
	return b.String(), nil
}
