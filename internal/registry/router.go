package registry

import (
	"net/http"
	"strings"

	"github.com/quayctl/quayctl/internal/metadata"
	"github.com/quayctl/quayctl/internal/registry/regerr"
	"github.com/quayctl/quayctl/internal/registry/token"
)

// router sends a request to the part that serves its path. http.ServeMux would clean paths, and names are contract.
type router struct{ v1, v2, token http.Handler }

// ServeHTTP implements http.Handler.
func (m router) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r = r.WithContext(metadata.Track(r.Context()))
	switch path := r.URL.Path; {
	case path == token.Path:
		m.token.ServeHTTP(w, r)
	case path == "/v2" || strings.HasPrefix(path, "/v2/"):
		m.v2.ServeHTTP(w, r)
	case strings.HasPrefix(path, "/v1/"):
		m.v1.ServeHTTP(w, r)
	default:
		regerr.Write(w, r, regerr.NotFound)
	}
}
