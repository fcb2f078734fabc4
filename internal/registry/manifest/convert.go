package manifest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/quayctl/quayctl/internal/registry/manifest/jsondoc"
)

const (
	// emptyLayer is the layer of history entries that changed no file.
	emptyLayer     = "sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4"
	emptyLayerSize = 32 // bytes
)

// ConvertibleToSchema1 says whether AsSchema1 may succeed: an image with a config that has a history, and every layer
// in the registry.
func (m *Manifest) ConvertibleToSchema1() bool {
	for _, layer := range m.Layers {
		if layer.Remote {
			return false
		}
	}
	return !m.list && m.Schema1 == nil && m.NeedsConfig()
}

// AsSchema1 is the unsigned schema 1 document that clients get who accept nothing newer. name is the
// repository's, as the document shows it; config is the content of the config blob. It is false when the config's
// history does not fit the layers.
func (m *Manifest) AsSchema1(config []byte, name, tag string) (text []byte, ok bool) {
	value, err := parseJSON(config, "config")
	document, isObject := value.(*jsondoc.Object)
	if err != nil || !isObject || !m.ConvertibleToSchema1() {
		return nil, false
	}
	entries, _ := document.Get("history")
	history, _ := entries.([]any)
	images, blobs := []any{}, []any{}
	id := "" // of the image below
	ids := sha256.New()
	next := 0
	for i, item := range history {
		entry, isObject := item.(*jsondoc.Object)
		if !isObject {
			return nil, false
		}
		digest, size := emptyLayer, int64(emptyLayerSize)
		empty, _ := entry.Get("empty_layer")
		if empty != true {
			if next == len(m.Layers) {
				return nil, false
			}
			digest, size = m.Layers[next].Digest, m.Layers[next].Size
			next++
		}
		parent := id
		fmt.Fprintf(ids, "%s|%d|%s||", jsondoc.Dump(entry), i, digest)
		id = hex.EncodeToString(ids.Sum(nil))
		image := jsondoc.NewObject()
		if i == len(history)-1 { // the newest carries the config
			image = document.Without("history", "rootfs")
		}
		compatibility := v1Compatibility(image, entry, id, parent, size)
		// The document lists the newest first.
		images = append([]any{jsondoc.NewObject("v1Compatibility", jsondoc.Dump(compatibility))}, images...)
		blobs = append([]any{jsondoc.NewObject("blobSum", digest)}, blobs...)
	}
	if next != len(m.Layers) || len(history) == 0 {
		return nil, false
	}
	var b bytes.Buffer
	compact := jsondoc.Dump(jsondoc.NewObject("tag", tag, "name", name, "architecture", "amd64", "schemaVersion", int64(1),
		"history", images, "fsLayers", blobs))
	if err := json.Indent(&b, []byte(compact), "", "   "); err != nil {
		return nil, false
	}
	return b.Bytes(), true
}

// v1Compatibility adds to image what it does not say itself.
func v1Compatibility(image, entry *jsondoc.Object, id, parent string, size int64) *jsondoc.Object {
	image.Set("id", id)
	if parent != "" {
		image.Set("parent", parent)
	}
	for _, name := range []string{"created", "author", "comment"} {
		value, _ := entry.Get(name)
		if _, said := image.Get(name); !said && value != nil {
			image.Set(name, value)
		}
	}
	if empty, _ := entry.Get("empty_layer"); empty == true {
		image.Set("throwaway", true)
	}
	if _, said := image.Get("container_config"); !said {
		command, _ := entry.Get("created_by")
		image.Set("container_config", jsondoc.NewObject("Cmd", []any{command}))
	}
	image.Set("Size", size)
	return image
}
