package v1

import (
	"fmt"

	"github.com/speps/go-hashids/v2"
)

// imageIDLength is the length of a version 1 image id.
const imageIDLength = 64

// newImageIDs makes the code between version 1 image ids and the rows they are made of. salt is PAGE_TOKEN_KEY as it is written
// in the configuration; with another one every id is another.
func newImageIDs(salt string) (*hashids.HashID, error) {
	ids, err := hashids.NewWithData(&hashids.HashIDData{Alphabet: "0123456789abcdef", MinLength: imageIDLength, Salt: salt})
	if err != nil {
		return nil, fmt.Errorf("make version 1 image ids: %w", err)
	}
	return ids, nil
}

// imageID is the id of a manifest's layer; index 0 is the newest.
func (h *Handler) imageID(manifestID int64, index int) (string, error) {
	id, err := h.ids.EncodeInt64([]int64{manifestID, int64(index)})
	if err != nil {
		return "", fmt.Errorf("make image id of manifest %d: %w", manifestID, err)
	}
	return id, nil
}

// resolveImageID is the inverse of imageID; ok is false for what is no such id.
func (h *Handler) resolveImageID(id string) (manifestID int64, index int, ok bool) {
	if len(id) != imageIDLength {
		return 0, 0, false
	}
	numbers, err := h.ids.DecodeInt64WithError(id)
	if err != nil || len(numbers) != 2 || numbers[0] < 0 || numbers[1] < 0 || numbers[1] > 1<<20 || numbers[0] > 1<<31-1 {
		return 0, 0, false
	}
	return numbers[0], int(numbers[1]), true
}
