package v1

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"github.com/quayctl/quayctl/internal/registry/manifest/jsondoc"
)

// builder is the state of a push, which travels in the client's session: what images it has told of, what blobs they became.
// Either server goes on with a push that the other has begun.
type builder struct {
	id        string
	tags      map[string]int64 // 0: this server does not know the rows of tags, and nobody asks for them
	images    map[string]string
	blobs     map[string]string
	checksums map[string][]string
}

func newBuilder() *builder {
	return &builder{id: uuid.NewString(), tags: map[string]int64{}, images: map[string]string{}, blobs: map[string]string{},
		checksums: map[string][]string{}}
}

// parseBuilder reads the state; nil when it is none.
func parseBuilder(text string) *builder {
	var parts []json.RawMessage
	if json.Unmarshal([]byte(text), &parts) != nil || len(parts) != 5 {
		return nil
	}
	b := newBuilder()
	for i, target := range []any{&b.id, &b.tags, &b.images, &b.blobs, &b.checksums} {
		if json.Unmarshal(parts[i], target) != nil {
			return nil
		}
	}
	if b.tags == nil || b.images == nil || b.blobs == nil || b.checksums == nil {
		return nil
	}
	return b
}

func (b *builder) text() (string, error) {
	state, err := json.Marshal([]any{b.id, b.tags, b.images, b.blobs, b.checksums})
	if err != nil {
		return "", fmt.Errorf("write state of push: %w", err)
	}
	return string(state), nil
}

// layers are the layers of an image and of all below it, the newest first; ok is false when one of them was not pushed, or
// is below itself.
func (b *builder) layers(id string) (layers []layer, ok bool) {
	seen := map[string]bool{}
	for id != "" {
		v1, known := b.images[id]
		digest, stored := b.blobs[id]
		if !known || !stored || seen[id] {
			return nil, false
		}
		seen[id] = true
		layers = append(layers, layer{digest: digest, v1: v1})
		value, err := jsondoc.Parse(v1)
		image, isObject := value.(*jsondoc.Object)
		if err != nil || !isObject {
			return nil, false
		}
		id, ok = parent(image)
		if !ok {
			return nil, false
		}
	}
	return layers, true
}

// parent is the id of the image below; empty when there is none. ok is false when it is no text.
func parent(image *jsondoc.Object) (id string, ok bool) {
	value, _ := image.Get("parent")
	if value == nil {
		return "", true
	}
	id, ok = value.(string)
	return id, ok
}

func (b *builder) tagNames() []string {
	names := make([]string, 0, len(b.tags))
	for name := range b.tags {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// builder is the push that the session is in; nil when it is in none.
func (q *request) builder() *builder {
	id, ok := q.session.get(sessionBuilder)
	state, there := q.session.get(sessionState)
	if !ok || !there {
		return nil
	}
	b := parseBuilder(state)
	if b == nil || b.id != id {
		return nil
	}
	return b
}

func (q *request) saveBuilder(b *builder) error {
	state, err := b.text()
	if err != nil {
		return err
	}
	return q.session.set(sessionState, state)
}
