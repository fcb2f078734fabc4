package quadlet

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

const written = `# What it is
; and why

[Unit]
Description=A unit
# before the second
After=a.service
After=b.service

[Container]
Image=x
Exec=--one --two

[Unit]
After=c.service
# the end
`

func parse(t *testing.T, text string) *Unit {
	t.Helper()
	u, err := Parse("x.container", text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestParseKeepsOrderAndComments(t *testing.T) {
	u := parse(t, written)
	if diff := cmp.Diff(written, u.String()); diff != "" {
		t.Errorf("written again (-want +got):\n%s", diff)
	}
	if got := u.GetAll("Unit", "After"); !cmp.Equal(got, []string{"a.service", "b.service", "c.service"}) {
		t.Errorf("After = %q", got)
	}
}

func TestParseAsSystemdDoes(t *testing.T) {
	u := parse(t, "[Container]\nExec = a \\\n# within\n   b \\\n c\nVolume=/a:/b\nVolume=\nVolume=/c:/d")
	if v, _ := u.Get("Container", "Exec"); v != "a b c" {
		t.Errorf("Exec = %q", v)
	}
	if got := u.GetAll("Container", "Volume"); !cmp.Equal(got, []string{"/c:/d"}) {
		t.Errorf("Volume = %q: an empty assignment resets", got)
	}
	again := parse(t, u.String())
	if diff := cmp.Diff(u, again); diff != "" {
		t.Errorf("a unit read back differs:\n%s", diff)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, text := range []string{"A=b\n", "[Unit\nA=b\n", "[Unit]\nno assignment\n"} {
		if _, err := Parse("x.container", text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

func TestEdit(t *testing.T) {
	u := parse(t, "[Service]\nRestart=no\n# kept\nType=notify\nRestart=always\n")
	u.Section("Service").Set("Restart", "on-failure")
	u.Section("Install").Add("WantedBy", "x.target")
	u.Section("Service").Remove("Type")
	if diff := cmp.Diff("[Service]\nRestart=on-failure\n\n[Install]\nWantedBy=x.target\n", u.String()); diff != "" {
		t.Error(diff)
	}
}

func TestValidateRefusesWhatWouldNotBeReadBack(t *testing.T) {
	for _, e := range []Entry{{Key: "", Value: "x"}, {Key: "A=B", Value: "x"}, {Key: "A", Value: "x\nB=y"}, {Key: "A", Value: `x\`}} {
		u := &Unit{Name: "x", Sections: []*Section{{Name: "Unit", Entries: []Entry{e}}}}
		if u.Validate() == nil {
			t.Errorf("%+v was taken", e)
		}
	}
}

func TestDiff(t *testing.T) {
	a, b := parse(t, "[Container]\nImage=1\nVolume=/a:/b\nVolume=/c:/d\n"), parse(t, "# another comment\n[Container]\nVolume=/a:/b\nImage=2\nVolume=/c:/d\n")
	gone, come := &Unit{Name: "old.container"}, &Unit{Name: "new.container"}
	got := Diff([]*Unit{a, gone}, []*Unit{come, b})
	want := []Change{
		{Unit: "new.container", New: []string{"new.container"}},
		{Unit: "old.container", Old: []string{"old.container"}},
		{Unit: "x.container", Section: "Container", Key: "Image", Old: []string{"1"}, New: []string{"2"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, c := range got {
		t.Log(c)
	}
}
