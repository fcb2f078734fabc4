package bundle

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ImageTar gives the image of a component as an OCI archive of that one image, with its name, which Podman loads
// keeping digest and ID (an archive of several images it refuses). The archive is made while it is read, and every blob is
// verified again on the way: a change since Open ends the reader with an *Error. The caller closes it.
func (b *Bundle) ImageTar(component string) (io.ReadCloser, error) {
	p, ok := b.images[component]
	if !ok {
		var have []string
		for _, i := range b.manifest.Images {
			have = append(have, i.Component)
		}
		return nil, &Error{Bundle: b.path, Kind: Missing, Member: "image " + component, Found: strings.Join(have, ", ")}
	}
	index := imagespec.Index{MediaType: imagespec.MediaTypeImageIndex, Manifests: []imagespec.Descriptor{p.descriptor}}
	index.SchemaVersion = 2
	raw, err := json.Marshal(index)
	if err != nil {
		return nil, fmt.Errorf("encode index of image %s: %w", component, err)
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(b.writeImage(w, raw, p.blobs)) }()
	return r, nil
}

func (b *Bundle) writeImage(w io.Writer, index []byte, blobs []string) error {
	tw := tar.NewWriter(w)
	put := func(name string, size int64, r io.Reader) error {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		_, err := io.Copy(tw, r)
		return err
	}
	if err := put(imagespec.ImageLayoutFile, int64(len(layoutFile)), strings.NewReader(layoutFile)); err != nil {
		return err
	}
	if err := put(imagespec.ImageIndexFile, int64(len(index)), bytes.NewReader(index)); err != nil {
		return err
	}
	for _, name := range blobs {
		m, _ := b.manifest.Member(name) // Open has checked that it is there
		r, err := b.openMember(m)
		if err != nil {
			return err
		}
		err = put(strings.TrimPrefix(name, LayoutDir+"/"), m.Size, r)
		r.Close()
		if err != nil {
			return err
		}
	}
	return tw.Close()
}
