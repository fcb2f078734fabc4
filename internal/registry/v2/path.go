package v2

import (
	"regexp"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// Shape is the form of a path below /v2/. Repository names contain slashes, so paths are read from their tail.
type Shape int

// The shapes of the distribution protocol.
const (
	ShapeNone      Shape = iota
	ShapePing            // /v2/
	ShapeCatalog         // /v2/_catalog
	ShapeTags            // /v2/<name>/tags/list
	ShapeManifest        // /v2/<name>/manifests/<tag or digest>: Reference, and Digest if it is one
	ShapeReferrers       // /v2/<name>/referrers/<digest>: Digest
	ShapeBlob            // /v2/<name>/blobs/<digest>: Digest
	ShapeBlobAny         // the same with something that is no digest: Reference
	ShapeUploads         // /v2/<name>/blobs/uploads/
	ShapeUpload          // /v2/<name>/blobs/uploads/<uuid>: UploadID
)

var (
	// digestPattern is the legacy routes' idea of a digest: no length check.
	digestPattern = regexp.MustCompile(`^[A-Za-z0-9_+.-]+:[A-Fa-f0-9]+$`)
)

// isTag tells whether s routes as a tag: [\w][\w.-]{0,127}, with Unicode's idea of \w as in Python.
func isTag(s string) bool {
	n := 0
	for _, r := range s {
		word := r == '_' || unicode.IsLetter(r) || unicode.IsNumber(r)
		if !word && (n == 0 || r != '.' && r != '-') {
			return false
		}
		if n++; n > 128 {
			return false
		}
	}
	return n > 0
}

type parsedPath struct {
	shape     Shape
	repo      string // the raw name part, slashes included
	reference string
	digest    string
	uploadID  string
	noSlash   bool // ShapeUploads without its final slash
}

// parsePath reads an unescaped URL path. ok is false when no route has that form.
func parsePath(path string) (p parsedPath, ok bool) {
	rest, ok := strings.CutPrefix(path, "/v2/")
	if !ok {
		return p, false
	}
	switch rest {
	case "":
		return parsedPath{shape: ShapePing}, true
	case "_catalog":
		return parsedPath{shape: ShapeCatalog}, true
	}
	if repo, found := strings.CutSuffix(rest, "/tags/list"); found && repo != "" {
		return parsedPath{shape: ShapeTags, repo: repo}, true
	}
	if repo, found := strings.CutSuffix(rest, "/blobs/uploads/"); found && repo != "" {
		return parsedPath{shape: ShapeUploads, repo: repo}, true
	}
	head, last, found := cutLast(rest)
	if !found || last == "" {
		return p, false
	}
	if repo, found := strings.CutSuffix(head, "/blobs/uploads"); found && repo != "" {
		return parsedPath{shape: ShapeUpload, repo: repo, uploadID: last}, true
	}
	repo, kind, found := cutLast(head)
	if !found || repo == "" {
		return p, false
	}
	p = parsedPath{repo: repo, reference: last}
	if digestPattern.MatchString(last) {
		p.digest = last
	}
	switch {
	case kind == "manifests" && (p.digest != "" || isTag(last)):
		p.shape = ShapeManifest
	case kind == "referrers" && p.digest != "":
		p.shape = ShapeReferrers
	case kind == "blobs" && p.digest != "":
		p.shape = ShapeBlob
	case kind == "blobs":
		p.shape, p.noSlash = ShapeBlobAny, last == "uploads"
	default:
		return p, false
	}
	return p, true
}

func cutLast(s string) (before, after string, found bool) {
	i := strings.LastIndexByte(s, '/')
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

// SplitName turns a path's name part into namespace and repository as the legacy server does: to ASCII, without
// final slashes, split at the first slash, the rest percent-quoted with + for spaces. A single segment lies in
// library, or gives an empty namespace when library is "".
func SplitName(name, library string) (namespace, repository string) {
	name = strings.TrimRight(toASCII(name), "/")
	namespace, repository, found := strings.Cut(name, "/")
	if !found {
		namespace, repository = library, name
	}
	return namespace, quotePlus(repository)
}

// folded are the Latin letters that do not decompose.
var folded = map[rune]string{'ß': "ss", 'æ': "ae", 'Æ': "AE", 'œ': "oe", 'Œ': "OE", 'ø': "o", 'Ø': "O", 'đ': "d", 'Đ': "D",
	'ł': "l", 'Ł': "L", 'þ': "th", 'Þ': "Th", 'ð': "d", 'Ð': "D", 'ı': "i"}

// toASCII drops accents; what has no Latin form becomes a question mark, which no repository's name has. (Repository
// names are ASCII by rule, so nothing that exists is reached by transliterating more than that.)
func toASCII(s string) string {
	ascii := true
	for i := range len(s) {
		if s[i] >= 0x80 {
			ascii = false
			break
		}
	}
	if ascii {
		return s
	}
	var b strings.Builder
	for _, r := range norm.NFKD.String(s) {
		switch latin, ok := folded[r]; {
		case r < 0x80:
			b.WriteRune(r)
		case ok:
			b.WriteString(latin)
		case !unicode.Is(unicode.Mn, r):
			b.WriteByte('?')
		}
	}
	return b.String()
}

// quotePlus is Python's quote_plus(s, safe="/").
func quotePlus(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("_.-~/", c) >= 0:
			b.WriteByte(c)
		case c == ' ':
			b.WriteByte('+')
		default:
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		}
	}
	return b.String()
}
