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

	"qwatch/internal/text"
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
		return nil, Errors{d.errorAt(span{0, len(bom)}, problem{"a byte order mark is not TOML", "save the file as UTF-8 without it"})}
	}
	if i := invalidUTF8(text); i >= 0 {
		return nil, Errors{d.errorAt(span{i, 1}, problem{
			fmt.Sprintf("byte 0x%02x is not valid UTF-8", text[i]), "save the file as UTF-8"})}
	}
	w := walker{document: d, set: map[string]bool{}}
	w.walk()
	if w.deep != nil {
		return nil, Errors{w.deep}
	}
	var tree map[string]any
	if err := toml.Unmarshal(text, &tree); err != nil {
		if w.twice != nil {
			return nil, w.twice
		}
		return nil, Errors{d.syntaxError(err)}
	}
	for key, value := range tree {
		d.flatten(quoteKey(key), value)
	}
	return d, nil
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
	return d.errorAt(at, problem{text.Line(strings.TrimPrefix(de.Error(), "toml: ")), `TOML wants text and durations in double quotes, and each key and table once: cooldown = "1m"`})
}

// maxDepth bounds the parts of a key and the nesting of values. No key of
// qwatch comes near; without a bound, paths would grow with its square.
const maxDepth = 16

// walker notes the place of everything up to the first syntax error.
type walker struct {
	*document
	set   map[string]bool
	twice Errors // what is set twice, the first of it
	deep  *Error // what goes beyond maxDepth
}

func (w *walker) walk() {
	p := &unstable.Parser{}
	p.Reset(w.text)
	for table := ""; w.deep == nil && p.NextExpression(); {
		n := p.Expression()
		if n.Kind == unstable.KeyValue {
			w.pair(table, n, 0)
			continue
		}
		table = w.key("", n)
		if n.Kind == unstable.ArrayTable {
			table = index(table, w.tables[table]-1)
		}
	}
}

// key notes the parts of the dotted key of n, which stands in table.
func (w *walker) key(table string, n *unstable.Node) (path string) {
	path = table
	var at span
	it := n.Key()
	for depth := 1; it.Next(); depth++ {
		part := it.Node()
		table, at = path, rangeSpan(part)
		if depth > maxDepth {
			w.tooDeep(at)
			return path
		}
		path = join(table, string(part.Data))
		if _, known := w.keys[path]; !known {
			w.keys[path], w.places[path] = at, at
			w.entries = append(w.entries, entry{path, table, string(part.Data)})
		}
		if n := w.tables[path]; n > 0 && !it.IsLast() {
			path = index(path, n-1) // TOML: the newest element is meant
		}
	}
	if n.Kind == unstable.ArrayTable {
		element := index(path, w.tables[path])
		w.keys[element], w.places[element] = at, at
		w.tables[path]++
		return path
	}
	if w.set[path] && len(w.twice) < maxErrors {
		line := bytes.Count(w.text[:w.places[path].offset], []byte("\n")) + 1
		w.twice = append(w.twice, w.errorAt(at, problem{path + " is set twice",
			fmt.Sprintf("it is already set on line %d; keep one", line)}))
	}
	w.set[path] = true
	return path
}

// pair notes the places of a key and its value.
func (w *walker) pair(table string, n *unstable.Node, depth int) {
	path := w.key(table, n)
	w.value(path, n.Value(), w.keys[path], depth)
}

func (w *walker) value(path string, n *unstable.Node, at span, depth int) {
	if n.Raw.Length > 0 {
		at = rangeSpan(n)
	}
	w.places[path] = at
	if depth > maxDepth {
		w.tooDeep(at)
	}
	i := 0
	for it := n.Children(); w.deep == nil && it.Next(); i++ {
		if n.Kind == unstable.InlineTable {
			w.pair(path, it.Node(), depth+1)
		} else {
			w.value(index(path, i), it.Node(), at, depth+1)
		}
	}
}

func (w *walker) tooDeep(at span) {
	w.deep = w.errorAt(at, problem{fmt.Sprintf("nested more than %d deep", maxDepth), "no key of qwatch is; see " + DefaultPath})
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

// quoteKey keeps a key from being mistaken for a path.
func quoteKey(key string) string {
	if bareKey.MatchString(key) {
		return key
	}
	return strconv.Quote(key)
}

func join(table, key string) string {
	if table == "" {
		return quoteKey(key)
	}
	return table + "." + quoteKey(key)
}

func index(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }

// invalidUTF8 is the offset of the first byte that is no UTF-8, or -1.
func invalidUTF8(b []byte) int {
	for i, r := range string(b) {
		if r == utf8.RuneError && !bytes.HasPrefix(b[i:], []byte("\ufffd")) {
			return i
		}
	}
	return -1
}
