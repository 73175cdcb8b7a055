package config

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// document is a TOML file as flat maps from path to value and to place. A
// path is what an administrator would write, policy.max_backlog, with an index
// behind each array: source[1].files[0]. A decoder into structs would stop at
// the first value of a wrong type; this way each value is read by itself and
// all errors come in one go.
type document struct {
	name    string
	text    []byte
	entries []entry
	values  map[string]any
	keys    map[string]span // of the key's last part, where it first stands
	places  map[string]span // of a scalar itself, of an array's or table's key
	tables  map[string]int  // how many [[…]] of each name
}

// entry is a part of a key or table header as it first stands in the file.
type entry struct{ path, table, key string }

// newDocument parses text. Its errors are those of TOML itself.
func newDocument(name string, text []byte) (*document, Errors) {
	d := &document{
		name: name, text: text,
		values: map[string]any{}, keys: map[string]span{}, places: map[string]span{}, tables: map[string]int{},
	}
	if bom := "\xef\xbb\xbf"; bytes.HasPrefix(text, []byte(bom)) {
		return nil, Errors{d.errorAt(span{0, len(bom)}, flaw{"a byte order mark is not TOML", "save the file as UTF-8 without it"})}
	}
	if i := invalidUTF8(text); i >= 0 {
		return nil, Errors{d.errorAt(span{i, 1}, flaw{
			fmt.Sprintf("byte 0x%02x is not valid UTF-8", text[i]), "save the file as UTF-8"})}
	}
	var tree map[string]any
	err := toml.Unmarshal(text, &tree)
	twice := d.walk()
	if err != nil {
		if twice != nil {
			return nil, twice
		}
		return nil, Errors{d.syntaxError(err)}
	}
	for key, value := range tree {
		d.flatten(quote(key), value)
	}
	return d, nil
}

func (d *document) errorAt(at span, f flaw) *Error { return errorAt(d.name, d.text, at, f) }

// line says on which line path stands.
func (d *document) line(path string) int {
	return bytes.Count(d.text[:d.places[path].offset], []byte("\n")) + 1
}

func (d *document) syntaxError(err error) *Error {
	var de *toml.DecodeError
	if !errors.As(err, &de) {
		return &Error{File: d.name, Message: err.Error(), Hint: "see https://toml.io for the syntax"}
	}
	line, column := de.Position()
	offset := 0
	for range line - 1 {
		offset += bytes.IndexByte(d.text[offset:], '\n') + 1
	}
	at := span{min(offset+column-1, len(d.text)), 1}
	return d.errorAt(at, flaw{string(printable([]byte(strings.TrimPrefix(de.Error(), "toml: ")))), `TOML wants text and durations in double quotes, and each key and table once: cooldown = "1m"`})
}

// walk notes the place of everything up to the first syntax error. It answers
// with what is set twice.
func (d *document) walk() (twice Errors) {
	set := map[string]bool{}
	once := func(path string, at span) {
		if set[path] {
			twice = append(twice, d.errorAt(at, flaw{path + " is set twice",
				fmt.Sprintf("it is already set on line %d; keep one", d.line(path))}))
		}
		set[path] = true
	}
	p := &unstable.Parser{}
	p.Reset(d.text)
	for table := ""; p.NextExpression(); {
		n := p.Expression()
		if n.Kind == unstable.KeyValue {
			d.pair(table, n, once)
			continue
		}
		path, at := d.key("", n)
		if n.Kind == unstable.ArrayTable {
			path = index(path, d.tables[path]-1)
			d.keys[path], d.places[path] = at, at
		} else {
			once(path, at)
		}
		table = path
	}
	return twice
}

// key notes the parts of the dotted key of n, which stands in table.
func (d *document) key(table string, n *unstable.Node) (path string, at span) {
	path = table
	for it := n.Key(); it.Next(); {
		part := it.Node()
		table, at = path, rangeSpan(part)
		path = join(table, string(part.Data))
		if _, known := d.places[path]; !known {
			d.keys[path], d.places[path] = at, at
			d.entries = append(d.entries, entry{path, table, string(part.Data)})
		}
		if it.IsLast() {
			break
		}
		if n := d.tables[path]; n > 0 {
			path = index(path, n-1) // TOML: the newest element is meant
		}
	}
	if n.Kind == unstable.ArrayTable {
		d.tables[path]++
	}
	return path, at
}

// pair notes the places of a key and its value.
func (d *document) pair(table string, n *unstable.Node, once func(string, span)) {
	path, at := d.key(table, n)
	once(path, at)
	d.value(path, n.Value(), at, once)
}

func (d *document) value(path string, n *unstable.Node, at span, once func(string, span)) {
	if n.Raw.Length > 0 {
		at = rangeSpan(n)
	}
	d.places[path] = at
	i := 0
	for it := n.Children(); it.Next(); i++ {
		if n.Kind == unstable.InlineTable {
			d.pair(path, it.Node(), once)
		} else {
			d.value(index(path, i), it.Node(), at, once)
		}
	}
}

func rangeSpan(n *unstable.Node) span { return span{int(n.Raw.Offset), int(n.Raw.Length)} }

func (d *document) flatten(path string, value any) {
	d.values[path] = value
	switch v := value.(type) {
	case map[string]any:
		for key, value := range v {
			d.flatten(join(path, key), value)
		}
	case []any:
		for i, value := range v {
			d.flatten(index(path, i), value)
		}
	}
}

var bareKey = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// quote keeps a key from being mistaken for a path.
func quote(key string) string {
	if bareKey.MatchString(key) {
		return key
	}
	return strconv.Quote(key)
}

func join(table, key string) string {
	if table == "" {
		return quote(key)
	}
	return table + "." + quote(key)
}

func index(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }

// invalidUTF8 is the offset of the first byte that is no UTF-8, or -1.
func invalidUTF8(b []byte) int {
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}
