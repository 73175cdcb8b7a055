package uwsgiconf

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

type format int

const (
	none format = iota
	ini
	yamlFormat
	jsonFormat
	xmlFormat
)

func (f format) String() string {
	return [...]string{"a configuration", "INI", "YAML", "JSON", "XML"}[f]
}

// line is one option of a file.
type line struct {
	key, text   string
	number      int // of its line, from 1
	conditional bool
}

// parse gives the options of one section, "" for the usual one, in the order in
// which uWSGI takes them. A file without that section has none.
func parse(how format, text []byte, section string) ([]line, error) {
	if section == "" && how != xmlFormat {
		section = "uwsgi"
	}
	switch how {
	case ini:
		return parseINI(text, section), nil
	case yamlFormat:
		return parseYAML(text, section)
	case jsonFormat:
		return parseJSON(text, section)
	case xmlFormat:
		return parseXML(text, section)
	default:
		return nil, fmt.Errorf("no such format: %d", how)
	}
}

// parseINI is core/ini.c: a comment is a whole line, a key without "=" is empty.
func parseINI(text []byte, asked string) []line {
	var lines []line
	section, number := "", 0
	for l := range strings.Lines(string(text)) {
		number++
		l = strings.Trim(strings.TrimSuffix(l, "\n"), " \t\r")
		switch {
		case l == "", l[0] == ';', l[0] == '#':
		case l[0] == '[':
			section = l[1:max(1, len(l)-1)] // whatever the last character is
		case section == asked:
			key, value, _ := strings.Cut(l, "=")
			lines = append(lines, line{
				key: strings.TrimRight(key, " \t\r"), text: strings.TrimLeft(value, " \t\r"), number: number,
			})
		}
	}
	return lines
}

// parseYAML takes scalars and lists of scalars of the section's mapping, as
// core/yaml.c does with libyaml. That looks at tokens, not at the document, and so
// finds options in what is nested, and sections at any depth and in any document,
// and stops at an anchor: what is written so is not followed.
func parseYAML(text []byte, asked string) ([]line, error) {
	var doc yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(text))
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, err
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one document")
	}
	top := doc.Content[0]
	if top.Kind != yaml.MappingNode {
		return nil, notPlain(top, asked)
	}
	var section *yaml.Node
	for key, value := range pairs(top) {
		switch {
		case key.Kind == yaml.ScalarNode && key.Value == asked && section == nil && value.Kind == yaml.MappingNode:
			section = value
		case section != nil: // nobody reads on
		case notPlain(value, asked) != nil || notPlain(key, asked) != nil:
			return nil, errAskew
		}
	}
	if section == nil {
		return nil, nil
	}
	if section.Style&yaml.FlowStyle != 0 || section.Anchor != "" || section.Style&yaml.TaggedStyle != 0 {
		return nil, errAskew
	}
	var lines []line
	for key, value := range pairs(section) {
		values := []*yaml.Node{value}
		if value.Kind == yaml.SequenceNode {
			values = value.Content
		}
		for _, v := range append([]*yaml.Node{key, value}, values...) {
			if v.Kind == yaml.MappingNode || v.Kind == yaml.AliasNode || v.Anchor != "" || v.Style&yaml.TaggedStyle != 0 || v != value && v.Kind != yaml.ScalarNode {
				return nil, errAskew
			}
		}
		for _, v := range values {
			lines = append(lines, line{key: key.Value, text: v.Value, number: v.Line})
		}
	}
	return lines, nil
}

var errAskew = errors.New("written in a way in which uWSGI and YAML differ")

// notPlain says why what is beside the section may hold one for uWSGI.
func notPlain(n *yaml.Node, asked string) error {
	if n.Kind == yaml.ScalarNode && n.Value == asked {
		return errAskew
	}
	for _, inner := range n.Content {
		if err := notPlain(inner, asked); err != nil {
			return err
		}
	}
	return nil
}

func pairs(mapping *yaml.Node) func(func(key, value *yaml.Node) bool) {
	return func(yield func(key, value *yaml.Node) bool) {
		for i := 0; i+1 < len(mapping.Content); i += 2 {
			if !yield(mapping.Content[i], mapping.Content[i+1]) {
				return
			}
		}
	}
}

// parseJSON takes strings, numbers, booleans (1 and 0), null (0) and lists of
// them from the section's object, in their order (core/json.c).
func parseJSON(text []byte, asked string) ([]line, error) {
	if err := json.Unmarshal(text, new(json.RawMessage)); err != nil { // the decoder below stops early
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	if err := open(dec, '{'); err != nil {
		return nil, err
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, err
		}
		if key != asked {
			var skip json.RawMessage
			if err := dec.Decode(&skip); err != nil {
				return nil, err
			}
			continue
		}
		if err := open(dec, '{'); err != nil {
			return nil, err
		}
		var lines []line
		for dec.More() {
			key, err := dec.Token()
			if err != nil {
				return nil, err
			}
			number := 1 + bytes.Count(text[:dec.InputOffset()], []byte("\n"))
			var value any
			if err := dec.Decode(&value); err != nil {
				return nil, err
			}
			values, ok := value.([]any)
			if !ok {
				values = []any{value}
			}
			for _, v := range values {
				if s, ok := jsonText(v); ok {
					lines = append(lines, line{key: key.(string), text: s, number: number})
				}
			}
		}
		return lines, nil
	}
	return nil, fmt.Errorf("no object %q", asked)
}

func open(dec *json.Decoder, delim json.Delim) error {
	t, err := dec.Token()
	if err == nil && t != delim {
		err = fmt.Errorf("%v where an object should begin", t)
	}
	return err
}

func jsonText(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case json.Number:
		return v.String(), true
	case nil:
		return "0", true
	case bool:
		if v {
			return "1", true
		}
		return "0", true
	}
	return "", false
}

// parseXML takes the children of <uwsgi>, the root or its child (core/xmlconf.c
// with libxml2). Elements with another id than the one asked for are left out;
// whether one with a mode counts is for --mode to say.
func parseXML(text []byte, id string) ([]line, error) {
	dec := xml.NewDecoder(bytes.NewReader(text))
	var lines []line
	depth, inside := 0, 0 // inside is the depth of the <uwsgi> that was found
	for {
		t, err := dec.Token()
		if errors.Is(err, io.EOF) && inside == 0 {
			return nil, errors.New("no element <uwsgi>")
		}
		if err != nil {
			return nil, err
		}
		switch t := t.(type) {
		case xml.EndElement:
			if depth == inside {
				return lines, nil
			}
			depth--
		case xml.StartElement:
			depth++
			other := id != "" && attr(t, "id") != "" && attr(t, "id") != id
			switch {
			case inside == 0 && t.Name.Local == "uwsgi" && depth <= 2 && (depth == 1 || !other):
				inside = depth
			case inside > 0 && depth == inside+1:
				number, _ := dec.InputPos()
				value, err := firstText(dec)
				if err != nil {
					return nil, err
				}
				depth--
				if !other {
					lines = append(lines, line{key: t.Name.Local, text: value, number: number, conditional: attr(t, "mode") != ""})
				}
			}
		}
	}
}

// firstText is the text that an element begins with, and "1" for an empty one;
// it reads on to the element's end.
func firstText(dec *xml.Decoder) (string, error) {
	value, first := "1", true
	for depth := 0; ; first = false {
		t, err := dec.Token()
		if err != nil {
			return "", err
		}
		switch t := t.(type) {
		case xml.CharData:
			if first {
				value = string(t)
			}
		case xml.StartElement:
			depth++
		case xml.EndElement:
			if depth == 0 {
				return value, nil
			}
			depth--
		}
	}
}

func attr(e xml.StartElement, name string) string {
	for _, a := range e.Attr {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}
