package appliance

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/quayctl/quayctl/internal/config"
)

// ServerHostname is NAME:PORT, or NAME at the port of https, as clients write it.
func ServerHostname(host string, port int) string {
	if port == 443 {
		if strings.Contains(host, ":") {
			return "[" + host + "]"
		}
		return host
	}
	return net.JoinHostPort(host, strconv.Itoa(port))
}

// Where the instance key lies inside the containers.
const (
	keyPEM = "/keys/quay.pem"
	keyKID = "/keys/quay.kid"
)

// fixed are the keys whose values the appliance decides: its database, its storage, its name.
var fixed = []string{
	"SERVER_HOSTNAME", "PREFERRED_URL_SCHEME", "EXTERNAL_TLS_TERMINATION", "DB_URI",
	"DISTRIBUTED_STORAGE_CONFIG", "DISTRIBUTED_STORAGE_PREFERENCE", "DISTRIBUTED_STORAGE_DEFAULT_LOCATIONS",
	"INSTANCE_SERVICE_KEY_LOCATION", "INSTANCE_SERVICE_KEY_KID_LOCATION",
}

// settings gives the config.yaml of an installation: base (nil for none) with what is missing and what the appliance
// decides. Secrets in base stay; others are made. Comments and the order of base stay.
func settings(base []byte, serverHostname, superUser string) ([]byte, error) {
	a := config.Appliance{ServerHostname: serverHostname, SuperUsers: []string{superUser}}
	for _, s := range []*config.Secret{&a.SecretKey, &a.DatabaseSecretKey} {
		*s = config.NewSecret(rand.Text() + rand.Text())
	}
	fernet := make([]byte, 32)
	rand.Read(fernet)
	a.PageTokenKey = config.NewSecret(base64.URLEncoding.EncodeToString(fernet))
	fresh, err := a.Render()
	if err != nil {
		return nil, err
	}
	fresh = append(fresh, fmt.Sprintf("INSTANCE_SERVICE_KEY_LOCATION: %s\nINSTANCE_SERVICE_KEY_KID_LOCATION: %s\n", keyPEM, keyKID)...)
	result := fresh
	if len(bytes.TrimSpace(base)) > 0 {
		if result, err = merge(base, fresh); err != nil {
			return nil, err
		}
	}
	c, err := config.Parse(result)
	if err != nil {
		return nil, err
	}
	if err := c.Validate().Err(); err != nil {
		return nil, err
	}
	return result, nil
}

func merge(base, fresh []byte) ([]byte, error) {
	var old, add yaml.Node
	if err := yaml.Unmarshal(base, &old); err != nil {
		return nil, fmt.Errorf("read settings: %w", err)
	}
	if err := yaml.Unmarshal(fresh, &add); err != nil {
		return nil, fmt.Errorf("read settings: %w", err)
	}
	if len(old.Content) != 1 || old.Content[0].Kind != yaml.MappingNode {
		return nil, errors.New("read settings: config.yaml is no mapping of keys to values")
	}
	into, from := old.Content[0], add.Content[0]
	changed := false
	for i := 0; i+1 < len(from.Content); i += 2 {
		key, value := from.Content[i], from.Content[i+1]
		at := -1
		for j := 0; j+1 < len(into.Content); j += 2 {
			if into.Content[j].Value == key.Value {
				at = j
			}
		}
		switch {
		case at < 0:
			into.Content = append(into.Content, key, value)
			changed = true
		case isFixed(key.Value) && !sameYAML(into.Content[at+1], value):
			if key.Value == "DB_URI" || key.Value == "DISTRIBUTED_STORAGE_CONFIG" {
				return nil, fmt.Errorf("settings: %s names another place than the appliance's own; remove the key, the appliance brings its database and storage with it", key.Value)
			}
			into.Content[at+1] = value
			changed = true
		}
	}
	if !changed {
		return base, nil
	}
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := errors.Join(enc.Encode(&old), enc.Close()); err != nil {
		return nil, fmt.Errorf("write settings: %w", err)
	}
	return out.Bytes(), nil
}

func isFixed(key string) bool {
	for _, k := range fixed {
		if k == key {
			return true
		}
	}
	return false
}

func sameYAML(a, b *yaml.Node) bool {
	x, err := yaml.Marshal(a)
	if err != nil {
		return false
	}
	y, err := yaml.Marshal(b)
	if err != nil {
		return false
	}
	var u, v any
	if yaml.Unmarshal(x, &u) != nil || yaml.Unmarshal(y, &v) != nil {
		return false
	}
	return fmt.Sprint(u) == fmt.Sprint(v)
}

// ensurePassword gives the first user's password: the given one, else the one in the file, else a new one, which is
// written to the file first. A given one does not replace that in the file, which may be the one that is valid; made tells
// that there was none.
func ensurePassword(l Layout, given string) (password string, made bool, err error) {
	b, err := os.ReadFile(l.AdminPassword())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", false, fmt.Errorf("read password: %w", err)
	}
	kept := strings.TrimSuffix(string(b), "\n")
	switch {
	case given != "" && kept != "":
		return given, false, nil
	case kept != "":
		return kept, false, nil
	case given != "":
		password = given
	default:
		password = rand.Text() // 130 bits
	}
	return password, true, writePassword(l, password)
}

func writePassword(l Layout, password string) error {
	return writeFile(l.AdminPassword(), []byte(password+"\n"), 0o600)
}
