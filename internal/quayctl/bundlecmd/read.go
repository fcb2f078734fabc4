package bundlecmd

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quayctl/quayctl/internal/bundle"
	"github.com/quayctl/quayctl/internal/quayctl/cli"
)

type readOptions struct {
	f      *cli.Factory
	args   []string
	key    string
	format cli.Format
}

func (o *readOptions) addFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.key, "key", "", "`file` with the publisher's public key in PEM, instead of the one compiled in")
	cli.AddOutputFlag(cmd, &o.format)
}

func newVerify(f *cli.Factory, run func(*cobra.Command, *readOptions) error) *cobra.Command {
	o := &readOptions{f: f}
	cmd := &cobra.Command{
		Use:   "verify [FILE|DIRECTORY]",
		Short: "Check the signature of a bundle and every byte in it",
		Long: `Check the signature of a bundle's manifest, and that the bundle has exactly the members which the
manifest lists, unaltered. Without an argument: the directory that quayctl lies in.
Of a directory, everything in profiles/ and oci/ counts; other files beside the members may lie there.
Exit code 4 if anything is wrong.`,
		Args: atMostOne,
		RunE: func(cmd *cobra.Command, args []string) error { o.args = args; return run(cmd, o) },
	}
	o.addFlags(cmd)
	return cmd
}

func runVerify(cmd *cobra.Command, o *readOptions) error {
	p, err := path(o.f, o.args)
	if err != nil {
		return err
	}
	keys, err := Keys(o.key)
	if err != nil {
		return err
	}
	rep := o.f.Progress()
	defer rep.Close()
	task := rep.Task("verify "+p, 0)
	var last int64
	b, err := bundle.Open(cmd.Context(), p, bundle.OpenOptions{Keys: keys, Progress: func(done, _ int64) {
		task.Add(done - last)
		last = done
	}})
	task.Done(err)
	if err != nil {
		return AsError(err)
	}
	defer b.Close() //nolint:errcheck // it was only read
	m := b.Manifest()
	if o.format == cli.FormatJSON {
		return cli.WriteJSON(o.f.IO.Out, "bundle", 1, describe(p, memberBytes(m), m, bundle.SignatureValid))
	}
	_, err = fmt.Fprintf(o.f.IO.Out, "%s: %s %s for linux/%s: signature and %d members are good\n", p, m.Product, m.Version, m.Arch, len(m.Members))
	return err
}

func newInspect(f *cli.Factory, run func(*cobra.Command, *readOptions) error) *cobra.Command {
	o := &readOptions{f: f}
	cmd := &cobra.Command{
		Use:   "inspect [FILE|DIRECTORY]",
		Short: "Tell what a bundle holds, without unpacking it",
		Long: `Tell what a bundle's manifest says, and whether its signature is good. The members themselves are not
read: use verify for that. Without an argument: the directory that quayctl lies in.`,
		Args: atMostOne,
		RunE: func(cmd *cobra.Command, args []string) error { o.args = args; return run(cmd, o) },
	}
	o.addFlags(cmd)
	return cmd
}

func runInspect(_ *cobra.Command, o *readOptions) error {
	p, err := path(o.f, o.args)
	if err != nil {
		return err
	}
	keys, err := Keys(o.key)
	if err != nil {
		return err
	}
	i, err := bundle.Inspect(p, keys)
	if err != nil {
		return AsError(err)
	}
	m := i.Manifest
	if o.format == cli.FormatJSON {
		return cli.WriteJSON(o.f.IO.Out, "bundle", 1, describe(p, memberBytes(m), m, i.Signature))
	}
	w := o.f.IO.Out
	upgrades := "none"
	if len(m.UpgradesFrom) > 0 {
		upgrades = strings.Join(m.UpgradesFrom, ", ")
	}
	for _, line := range [][2]string{
		{"Bundle", p}, {"Product", m.Product + " " + m.Version}, {"Platform", m.OS + "/" + m.Arch}, {"Created", m.Created.Format(time.RFC3339)},
		{"Commit", m.Commit}, {"Signature", signatureWords(i.Signature)}, {"Size", cli.Bytes(memberBytes(m))}, {"Needs", "Podman " + m.Requires.Podman + " or newer"},
		{"Database", fmt.Sprintf("PostgreSQL %d, schema %s, takes over %s or newer", m.Database.PostgreSQL, m.Database.Newest, m.Database.Oldest)},
		{"Upgrades", upgrades},
	} {
		if _, err := fmt.Fprintf(w, "%-10s %s\n", line[0], line[1]); err != nil {
			return err
		}
	}
	fmt.Fprintln(w)
	t := cli.NewTable("image", "size", "on disk", "id", "digest")
	for _, i := range m.Images {
		t.Row(i.Name, cli.Bytes(i.Size), cli.Bytes(i.DiskSize), short(i.ID), i.Digest)
	}
	if err := t.Write(o.f.IO); err != nil {
		return err
	}
	fmt.Fprintln(w)
	t = cli.NewTable("member", "size", "sha256")
	for _, e := range m.Members {
		t.Row(e.Name, cli.Bytes(e.Size), e.SHA256)
	}
	return t.Write(o.f.IO)
}

func short(id string) string { return strings.TrimPrefix(id, "sha256:")[:12] }

func signatureWords(s bundle.SignatureState) string {
	switch s {
	case bundle.SignatureValid:
		return "good"
	case bundle.SignatureUnknown:
		return "there, but not checked: no public key is compiled in; give one with --key"
	}
	return "NOT GOOD: signed by another key, or altered"
}

func memberBytes(m *bundle.Manifest) int64 {
	var n int64
	for _, e := range m.Members {
		n += e.Size
	}
	return n
}

// description is the JSON form of a bundle, schema quayctl/bundle/v1.
type description struct {
	Path      string                `json:"path"`
	Size      int64                 `json:"size"` // bytes
	Signature bundle.SignatureState `json:"signature,omitempty"`
	Manifest  *bundle.Manifest      `json:"manifest"`
}

func describe(path string, size int64, m *bundle.Manifest, s bundle.SignatureState) description {
	return description{path, size, s, m}
}
