package manifest

import (
	"fmt"
	"regexp"
	"slices"

	"github.com/quayctl/quayctl/internal/registry/manifest/jsondoc"
)

// schema is the part of JSON Schema that the manifest formats need. A zero field asks for nothing.
type schema struct {
	kind     string // object, array, string or number
	min, max int64  // bounds of a number; asked for when max is not 0
	enum     []string
	pattern  *regexp.Regexp
	// patternText is pattern in the spelling that messages show.
	patternText string
	items       *schema
	members     []member
	required    []string
}

type member struct {
	name   string
	schema schema
}

var (
	anyObject = schema{kind: "object"}
	text      = schema{kind: "string"}
	number    = schema{kind: "number"}
	textList  = schema{kind: "array", items: &text}
)

// A media type need only contain something that looks like one.
var mediaType = schema{
	kind:        "string",
	pattern:     regexp.MustCompile(`[\p{L}\p{N}_]+/[-.\p{L}\p{N}_]+(?:\+[-.\p{L}\p{N}_]+)?`),
	patternText: `\w+/[-.\w]+(?:\+[-.\w]+)?`,
}

func oneOf(values ...string) schema { return schema{kind: "string", enum: values} }

func list(items schema) schema { return schema{kind: "array", items: &items} }

func descriptor(mediaType schema, more ...member) schema {
	members := append([]member{{"mediaType", mediaType}, {"size", number}, {"digest", text}}, more...)
	return schema{kind: "object", members: members, required: []string{"mediaType", "size", "digest"}}
}

var version2 = schema{kind: "number", min: 2, max: 2}

var dockerManifestSchema = schema{
	kind: "object",
	members: []member{
		{"schemaVersion", version2},
		{"mediaType", oneOf(DockerManifest)},
		{"config", descriptor(oneOf(DockerConfig))},
		{"layers", list(descriptor(oneOf(DockerLayer, DockerForeignLayer), member{"urls", textList}))},
	},
	required: []string{"schemaVersion", "mediaType", "config", "layers"},
}

var platform = schema{
	kind: "object",
	members: []member{
		{"architecture", text}, {"os", text}, {"os.version", text}, {"os.features", textList},
		{"variant", text}, {"features", textList},
	},
	required: []string{"architecture", "os"},
}

var dockerListSchema = schema{
	kind: "object",
	members: []member{
		{"schemaVersion", version2},
		{"mediaType", oneOf(DockerList)},
		{"manifests", list(withRequired(descriptor(oneOf(DockerManifest, DockerSchema1), member{"platform", platform}), "platform"))},
	},
	required: []string{"schemaVersion", "mediaType", "manifests"},
}

func withRequired(s schema, more ...string) schema {
	s.required = append(slices.Clone(s.required), more...)
	return s
}

var ociManifestSchema = schema{
	kind: "object",
	members: []member{
		{"schemaVersion", version2},
		{"mediaType", oneOf(OCIManifest)},
		{"artifactType", text},
		{"config", descriptor(mediaType, member{"annotations", anyObject})},
		{"layers", list(descriptor(mediaType, member{"urls", textList}, member{"annotations", anyObject}))},
		{"subject", descriptor(mediaType, member{"annotations", anyObject})},
		{"annotations", anyObject},
	},
	required: []string{"schemaVersion", "config", "layers"},
}

var ociIndexSchema = schema{
	kind: "object",
	members: []member{
		{"schemaVersion", version2},
		{"mediaType", oneOf(OCIIndex)},
		{"artifactType", text},
		{"subject", descriptor(mediaType)},
		{"manifests", list(descriptor(mediaType, member{"platform", platform}, member{"annotations", anyObject}))},
		{"annotations", anyObject},
	},
	required: []string{"schemaVersion", "manifests"},
}

var schema1Schema = schema{
	kind: "object",
	members: []member{
		{"schemaVersion", number},
		{"tag", text},
		{"name", text},
		{"signatures", list(schema{
			kind: "object",
			members: []member{
				{"header", schema{kind: "object", members: []member{{"alg", text}, {"jwk", anyObject}}, required: []string{"alg"}}},
				{"protected", text},
				{"signature", text},
			},
			required: []string{"protected", "signature"},
		})},
		{"fsLayers", list(schema{kind: "object", members: []member{{"blobSum", text}}, required: []string{"blobSum"}})},
		{"history", list(schema{kind: "object", members: []member{{"v1Compatibility", text}}, required: []string{"v1Compatibility"}})},
	},
	required: []string{"tag", "name", "fsLayers", "history"},
}

var imageConfigSchema = schema{
	kind: "object",
	members: []member{
		{"history", list(anyObject)},
		{"rootfs", schema{kind: "object"}},
	},
	required: []string{"history", "rootfs"},
}

// violation words the breach nearest to the top of the document, the first of equals: the one that the
// legacy server reports. Behind an empty line it says where, as the legacy server's library does. It is empty
// when there is no breach.
func (s *schema) violation(value any) string {
	best := breach{place: place{depth: -1}}
	s.check(value, place{}, func(found breach) {
		if best.depth < 0 || found.depth < best.depth {
			best = found
		}
	})
	if best.depth < 0 {
		return ""
	}
	return fmt.Sprintf("%s\n\nFailed validating '%s' in schema%s\n\nOn instance%s", best.text, best.keyword, best.schema, best.instance)
}

// place is where a value stands, in the document and in the schema.
type place struct {
	depth            int
	schema, instance string
}

func (p place) member(name string) place {
	return place{p.depth + 1, p.schema + "['properties']['" + name + "']", p.instance + "['" + name + "']"}
}

func (p place) item(i int) place {
	return place{p.depth + 1, p.schema + "['items']", fmt.Sprintf("%s[%d]", p.instance, i)}
}

type breach struct {
	place
	keyword, text string
}

func (s *schema) check(value any, at place, report func(breach)) {
	fail := func(keyword, format string, args ...any) { report(breach{at, keyword, fmt.Sprintf(format, args...)}) }
	object, isObject := value.(*jsondoc.Object)
	array, isArray := value.([]any)
	str, isString := value.(string)
	num, isNumber := value.(jsondoc.Number)
	if s.kind == "object" && !isObject || s.kind == "array" && !isArray || s.kind == "string" && !isString || s.kind == "number" && !isNumber {
		fail("type", "%s is not of type '%s'", jsondoc.Repr(value), s.kind)
	}
	if s.enum != nil && (!isString || !slices.Contains(s.enum, str)) {
		fail("enum", "%s is not one of %s", jsondoc.Repr(value), jsondoc.Repr(s.enum))
	}
	if s.pattern != nil && isString && !s.pattern.MatchString(str) {
		fail("pattern", "%s does not match %s", jsondoc.Repr(value), jsondoc.Repr(s.patternText))
	}
	if s.max != 0 && isNumber {
		if f := num.Float64(); f < float64(s.min) {
			fail("minimum", "%s is less than the minimum of %d", jsondoc.Repr(value), s.min)
		} else if f > float64(s.max) {
			fail("maximum", "%s is greater than the maximum of %d", jsondoc.Repr(value), s.max)
		}
	}
	if s.items != nil && isArray {
		for i, item := range array {
			s.items.check(item, at.item(i), report)
		}
	}
	if isObject {
		for i := range s.members {
			if v, ok := object.Get(s.members[i].name); ok {
				s.members[i].schema.check(v, at.member(s.members[i].name), report)
			}
		}
		for _, name := range s.required {
			if _, ok := object.Get(name); !ok {
				fail("required", "'%s' is a required property", name)
			}
		}
	}
}
