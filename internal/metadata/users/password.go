package users

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/bcrypt"
)

// cost of a new hash, the legacy server's.
const cost = 12

// significant is how many bytes of a password bcrypt looks at. The legacy server cuts longer ones silently.
const significant = 72

// HashPassword is the text for user.password_hash: bcrypt, cost 12, written with the prefix $2b$ as the legacy server
// writes it. It takes a good part of a second.
func HashPassword(password string) (string, error) {
	if err := ValidatePassword(password); err != nil {
		return "", err
	}
	hash, err := bcrypt.GenerateFromPassword(cut(password), cost)
	if err != nil {
		return "", fmt.Errorf("hash password: %w", err)
	}
	// Go writes $2a$; for the passwords that pass the check above both names mean the same function.
	return "$2b$" + strings.TrimPrefix(string(hash), "$2a$"), nil
}

// CheckPassword says whether hash was made from password.
func CheckPassword(hash, password string) bool {
	return !strings.ContainsRune(password, 0) && bcrypt.CompareHashAndPassword([]byte(hash), cut(password)) == nil
}

func cut(password string) []byte { return []byte(password)[:min(len(password), significant)] }

// ValidatePassword applies the rule for new passwords.
func ValidatePassword(password string) error {
	// Python's white space has the four separators below, Go's has not. No hash can be made with a NUL.
	unfit := func(r rune) bool { return unicode.IsSpace(r) || (r >= 0x1c && r <= 0x1f) || r == 0 }
	if utf8.RuneCountInString(password) < 8 || strings.ContainsFunc(password, unfit) {
		return &InvalidError{Field: "password", Reason: "Invalid password, password must be at least 8 characters and contain no whitespace."}
	}
	return nil
}
