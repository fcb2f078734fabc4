package itsdangerous

import (
	"encoding/json"
	"fmt"
	"time"
)

// Session is what a session cookie carries: members by name, each as tagged JSON. Members that this server does not know stay
// as they are.
type Session map[string]json.RawMessage

// OpenSession reads the value of a session cookie.
func (s *Serializer) OpenSession(cookie string, maxAge time.Duration, now time.Time) (Session, error) {
	payload, err := s.Open(cookie, maxAge, now)
	if err != nil {
		return nil, err
	}
	session := Session{}
	if err := json.Unmarshal(payload, &session); err != nil {
		return nil, fmt.Errorf("read session: %w", err)
	}
	return session, nil
}

// SealSession is the value of the cookie that carries the session.
func (s *Serializer) SealSession(session Session, now time.Time) (string, error) {
	payload, err := json.Marshal(session)
	if err != nil {
		return "", fmt.Errorf("write session: %w", err)
	}
	return s.Sign(payload, now)
}

// Text is a member that is a text; ok is false when there is no such member.
func (s Session) Text(name string) (text string, ok bool) {
	raw, ok := s[name]
	if !ok {
		return "", false
	}
	var value *string
	if json.Unmarshal(raw, &value) != nil || value == nil {
		return "", false
	}
	return *value, true
}

// SetText sets a member to a text.
func (s Session) SetText(name, text string) error {
	raw, err := json.Marshal(text)
	if err != nil {
		return fmt.Errorf("write session member %s: %w", name, err)
	}
	s[name] = raw
	return nil
}
