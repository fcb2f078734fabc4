package bundle

import (
	"fmt"
	"strings"
)

// Kind says what is wrong with a bundle. It is an error, so that errors.Is(err, bundle.Altered) asks for it.
type Kind string

// What can be wrong.
const (
	Unreadable    Kind = "cannot be read"
	NotABundle    Kind = "is no bundle"
	Truncated     Kind = "is cut short"
	Malformed     Kind = "is malformed"
	UnknownSchema Kind = "has an unknown schema version"
	Unsigned      Kind = "has no signature"
	NoKey         Kind = "cannot be verified without a public key"
	BadSignature  Kind = "was not signed by the expected key, or was altered since"
	Altered       Kind = "was altered"
	Missing       Kind = "is missing"
	Unexpected    Kind = "does not belong to the bundle"
	WrongArch     Kind = "was made for another architecture"
)

// Error implements error.
func (k Kind) Error() string { return string(k) }

// Remedy says what a user can do about it.
func (k Kind) Remedy() string {
	switch k {
	case Unreadable:
		return "check the path and its permissions; give a bundle with --bundle FILE|DIRECTORY"
	case NotABundle:
		return "give the tar file of the appliance, or the directory it was unpacked into"
	case UnknownSchema:
		return "use the quayctl that lies in this bundle"
	case NoKey:
		return "give the publisher's public key with --key FILE"
	case BadSignature, Unsigned:
		return "get the bundle again from its publisher; if another key signed it, give that key with --key FILE"
	case WrongArch:
		return "get the bundle for this machine's architecture"
	}
	return "copy the bundle again and compare its checksum with the published one"
}

// Error is one violation found in a bundle.
type Error struct {
	Bundle string // path of the tar or directory
	Kind   Kind
	Member string // empty for the bundle as a whole
	// Found and Expected are what was compared, in words; both may be empty.
	Found, Expected string
	Err             error // cause from below; may be nil
}

// Error is "bundle PATH: MEMBER was altered: found …, expected …".
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("bundle")
	if e.Bundle != "" {
		b.WriteString(" " + e.Bundle + ":")
	}
	if e.Member != "" {
		b.WriteString(" " + e.Member)
	}
	b.WriteString(" " + string(e.Kind))
	switch {
	case e.Found != "" && e.Expected != "":
		fmt.Fprintf(&b, ": found %s, expected %s", e.Found, e.Expected)
	case e.Found != "":
		b.WriteString(": found " + e.Found)
	case e.Expected != "":
		b.WriteString(": expected " + e.Expected)
	}
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	return b.String()
}

// Unwrap gives the kind and the cause.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Err}
}
