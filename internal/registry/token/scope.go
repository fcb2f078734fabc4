package token

import (
	"regexp"
	"slices"
	"strings"

	"github.com/quayctl/quayctl/internal/config"
	"github.com/quayctl/quayctl/internal/registry/regerr"
)

// scope is one requested scope.
type scope struct {
	echoed    string // the name as asked, perhaps with the server's name in front
	namespace string
	repo      string
	push      bool
	pull      bool
	star      bool
	delete    bool
	catalog   bool // registry:catalog:*, then nothing else is set
}

// grammar reads scopes.
//
// It is a superset of the legacy server's on purpose: that one answers 400 to the action delete and to
// registry:catalog:*, and so crane delete, crane catalog and oras manifest delete cannot work with it. Here delete asks for
// what a delete needs, the right to push, on a repository that exists; and the catalogue's scope is granted as
// an empty access list, because the catalogue looks at who asks.
type grammar struct {
	pattern *regexp.Regexp
	config  *config.Config
}

const catalogScope = "registry:catalog:*"

var (
	nestedName = regexp.MustCompile(`^[a-z0-9][.a-z0-9_-]*(?:/[a-z0-9][.a-z0-9_-]*)*$`)
	flatName   = regexp.MustCompile(`^[a-z0-9][.a-z0-9_-]{0,254}$`)
)

const maxNameLength = 255

func newGrammar(c *config.Config) grammar {
	return grammar{config: c, pattern: regexp.MustCompile(`^repository:((?:` + regexp.QuoteMeta(c.ServerHostname) +
		`/)?((?:[.a-zA-Z0-9_\-]+/)*[.a-zA-Z0-9_\-]+)):((?:push|pull|delete|\*)(?:,(?:push|pull|delete|\*))*)$`)}
}

// parse reads one scope; the errors are the protocol's.
func (g grammar) parse(text string) (scope, error) {
	if text == catalogScope {
		return scope{catalog: true}, nil
	}
	m := g.pattern.FindStringSubmatch(strings.TrimSuffix(text, "\n")) // Python's $ lets one newline pass
	if m == nil {
		return scope{}, regerr.InvalidRequest("Unable to decode repository and actions: " + text)
	}
	s := scope{echoed: m[1]}
	var found bool
	if s.namespace, s.repo, found = strings.Cut(m[2], "/"); !found {
		s.namespace, s.repo = g.config.LibraryNamespace, m[2]
	}
	actions := strings.Split(m[3], ",")
	s.push, s.pull = slices.Contains(actions, "push"), slices.Contains(actions, "pull")
	s.star, s.delete = slices.Contains(actions, "*"), slices.Contains(actions, "delete")
	name := s.namespace + "/" + s.repo
	switch {
	case g.config.Features.ExtendedRepositoryNames && (len(s.repo) > maxNameLength || !nestedName.MatchString(s.repo)):
		return scope{}, regerr.NameInvalid().WithMessage("Invalid repository name: %s", name)
	case !g.config.Features.ExtendedRepositoryNames && !flatName.MatchString(s.repo):
		return scope{}, regerr.NameInvalid().WithMessage("Nested repositories are not supported. Found: %s", name)
	}
	return s, nil
}

// name is namespace/repository.
func (s scope) name() string { return s.namespace + "/" + s.repo }
