//go:build machine

package vm_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	vm "github.com/quayctl/quayctl/test/vm"
)

// TestRestartUnderLoad restarts the edge and registryd under 200 pulls a second: no request fails. The machine is one on
// which Podman's socket and the user's linger are on before, and so must be after.
func TestRestartUnderLoad(t *testing.T) {
	t.Parallel()
	forUsers(t, func(t *testing.T, user string) {
		s := newSite(t, user, vm.Options{})
		if user != "root" {
			s.RunAs(user, "loginctl enable-linger")
		}
		s.RunAs(user, s.systemctl()+" start podman.socket")
		before := s.inventory()
		in := s.installBesideAnother()
		tag, img := s.push(in, "load")
		l := s.load(in, tag, img)
		for _, component := range []string{"edge", "registryd", "edge"} {
			s.want(s.quayctl("restart "+component), 0)
		}
		for _, unit := range []string{"quay-registryd.service", "quay-edge-a.service quay-edge-b.service"} {
			s.RunAs(user, s.systemctl()+" try-restart "+unit)
		}
		total, failed, slowest, rate := l.stop()
		t.Logf("%d pulls, %.0f a second, %d failed, slowest %v", total, rate, failed, slowest)
		if failed > 0 || total < 500 {
			t.Errorf("%d of %d pulls failed, the first: %v", failed, total, l.first.Load())
		}
		s.wantHealthy()
		s.want(s.quayctl("uninstall --yes --delete-data"), 0)
		s.wantSame(before, "uninstall")
	})
}

// pause is the time between two pulls: 200 a second.
const pause = 5 * time.Millisecond

// load pulls manifests and blobs in turn, on kept and on new connections.
type load struct {
	cancel        context.CancelFunc
	done          chan struct{}
	total, failed atomic.Int64
	slowest       atomic.Int64
	first         atomic.Value
	began         time.Time
}

func (s *site) load(in installed, tag name.Tag, img v1.Image) *load {
	s.t.Helper()
	tr := s.transport(in)
	tr.MaxIdleConnsPerHost = 64
	once := s.transport(in)
	once.DisableKeepAlives = true
	token := s.token(in, tag, tr)
	layers, err := img.Layers()
	if err != nil {
		s.t.Fatal(err)
	}
	digest, err := layers[0].Digest()
	if err != nil {
		s.t.Fatal(err)
	}
	repo := "https://" + s.addr() + "/v2/" + tag.RepositoryStr()
	urls := []string{repo + "/manifests/" + tag.TagStr(), repo + "/blobs/" + digest.String()}
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{cancel: cancel, done: make(chan struct{}), began: time.Now()}
	go func() {
		defer close(l.done)
		var wg sync.WaitGroup
		defer wg.Wait()
		tick := time.NewTicker(pause)
		defer tick.Stop()
		for i := 0; ; {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			// A tick may come late; then those that are due are sent at once.
			for ; i < int(time.Since(l.began)/pause); i++ {
				client := &http.Client{Transport: tr, Timeout: 30 * time.Second}
				if i%3 == 0 {
					client.Transport = once
				}
				wg.Go(func() { l.pull(client, urls[i%2], token) })
			}
		}
	}()
	return l
}

// pull pulls once and counts it.
func (l *load) pull(client *http.Client, url, token string) {
	start := time.Now()
	if err := get(client, url, token); err != nil {
		l.failed.Add(1)
		l.first.CompareAndSwap(nil, err)
	}
	l.total.Add(1)
	took := int64(time.Since(start))
	for old := l.slowest.Load(); took > old && !l.slowest.CompareAndSwap(old, took); old = l.slowest.Load() {
	}
}

func get(c *http.Client, url, token string) error {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Accept", "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json")
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s", url, resp.Status, body)
	}
	return nil
}

func (s *site) token(in installed, tag name.Tag, tr http.RoundTripper) string {
	s.t.Helper()
	req, err := http.NewRequest(http.MethodGet, fmt.Sprintf("https://%s/v2/auth?service=%s&scope=repository:%s:pull", s.addr(), s.addr(), tag.RepositoryStr()), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	req.SetBasicAuth(in.User, s.password(in))
	resp, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	var tok struct {
		Token string `json:"token"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&tok); err != nil || tok.Token == "" {
		s.t.Fatalf("token: %s %v", resp.Status, err)
	}
	return tok.Token
}

// stop ends the load and tells what became of it: how many requests, how many of them failed, the slowest, how many a second.
func (l *load) stop() (total, failed int64, slowest time.Duration, rate float64) {
	l.cancel()
	<-l.done
	total = l.total.Load()
	return total, l.failed.Load(), time.Duration(l.slowest.Load()), float64(total) / time.Since(l.began).Seconds()
}
