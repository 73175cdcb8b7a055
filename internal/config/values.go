package config

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"qwatch/internal/text"
	"qwatch/remediate"
)

// know makes path known, and the tables that it stands in.
func (p *parser) know(path string, table bool) {
	p.asked = append(p.asked, path)
	p.known[path] = table
	for i, r := range path {
		if r == '.' && !strings.Contains(path[:i], `"`) {
			if _, ok := p.known[path[:i]]; !ok {
				p.asked = append(p.asked, path[:i])
			}
			p.known[path[:i]] = true
		}
	}
}

// badValue notes what is wrong with the value of path.
func (p *parser) badValue(path, what, hint string) {
	p.found = append(p.found, located{p.doc.places[path], problem{what, hint}})
}

// badKey notes what is wrong with the key of path.
func (p *parser) badKey(path, what, hint string) {
	p.found = append(p.found, located{p.doc.keys[path], problem{what, hint}})
}

// get is the value of path, if the file has one and it is of the kind that
// want says in words.
func get[T any](p *parser, path, want, hint string) (value T, ok bool) {
	v, set := p.doc.values[path]
	if !set {
		return value, false
	}
	if value, ok = v.(T); !ok {
		p.badValue(path, fmt.Sprintf("%s must be %s, not %s", path, want, kindOf(v)), hint)
	}
	return value, ok
}

func kindOf(v any) string {
	switch v.(type) {
	case string:
		return "text"
	case bool:
		return "a boolean"
	case int64:
		return "an integer"
	case float64:
		return "a fraction"
	case []any:
		return "a list"
	case map[string]any:
		return "a table"
	}
	return "a date or time"
}

func (p *parser) bool(path string, to *bool) {
	p.know(path, false)
	if v, ok := get[bool](p, path, "a boolean", "true or false, without quotes"); ok {
		*to = v
	}
}

func (p *parser) integer(path string, to *int, lo, hi int64, hint string) {
	p.know(path, false)
	v, ok := get[int64](p, path, "an integer", fmt.Sprintf("a whole number without quotes, like %d", max(*to, 1)))
	switch {
	case !ok:
	case v < lo:
		p.badValue(path, fmt.Sprintf("%s is %d, must be at least %d", path, v, lo), hint)
	case v > hi:
		p.badValue(path, fmt.Sprintf("%s is %d, must be at most %d", path, v, hi), hint)
	default:
		*to = int(v)
	}
}

// number reads a fraction or an integer that is more than above and at most
// hi.
func (p *parser) number(path string, to *float64, above, hi float64, hint string) {
	p.know(path, false)
	v, ok := p.doc.values[path].(float64)
	if n, whole := p.doc.values[path].(int64); whole {
		v, ok = float64(n), true
	}
	if !ok {
		get[float64](p, path, "a number", "without quotes: "+hint)
		return
	}
	if !(v > above && v <= hi) { // so that NaN is out
		p.badValue(path, fmt.Sprintf("%s is %v, must be more than %v and at most %v", path, v, above, hi), hint)
		return
	}
	*to = v
}

const durationHint = `as Go writes them, in quotes: "500ms", "30s", "5m", "1h"`

func (p *parser) duration(path string, to *time.Duration, lo time.Duration, hint string) {
	p.know(path, false)
	text, ok := get[string](p, path, "a duration", durationHint)
	if !ok {
		return
	}
	v, err := time.ParseDuration(text)
	switch {
	case err != nil:
		p.badValue(path, path+": "+quoted(text)+" is not a duration", durationHint)
	case v < 0:
		p.badValue(path, fmt.Sprintf("%s is %v, must not be negative", path, v), hint)
	case v < lo:
		p.badValue(path, fmt.Sprintf("%s is %v, must be more than 0s", path, v), hint)
	default:
		*to = v
	}
}

func (p *parser) text(path string, to *string, check func(string) *problem) {
	p.know(path, false)
	v, ok := get[string](p, path, "text", "put it in double quotes")
	if !ok {
		return
	}
	if err := check(v); err != nil {
		p.badValue(path, path+": "+err.what, err.hint)
		return
	}
	*to = v
}

// texts reads a list that is not empty. A bad element leaves "" behind.
func (p *parser) texts(path string, to *[]string, check func(string) *problem) {
	before := len(p.found)
	p.listed(path, to, check)
	if _, set := p.doc.values[path]; set && len(*to) == 0 && len(p.found) == before {
		p.badValue(path, path+" is empty", "name at least one, or take the line out")
	}
}

// listed reads a list that may be empty.
func (p *parser) listed(path string, to *[]string, check func(string) *problem) {
	p.know(path, false)
	list, ok := get[[]any](p, path, "a list", `put it in brackets: ["…", "…"]`)
	if !ok {
		return
	}
	*to = make([]string, len(list))
	for i := range list {
		p.text(index(path, i), &(*to)[i], check)
	}
}

// word reads one of the words.
func word[T ~string](p *parser, path string, to *T, words ...T) {
	var texts []string
	for _, w := range words {
		texts = append(texts, string(w))
	}
	text := string(*to)
	p.text(path, &text, func(v string) *problem {
		if slices.Contains(texts, v) {
			return nil
		}
		return &problem{quoted(v) + " is not a choice", "one of: " + strings.Join(texts, ", ")}
	})
	*to = T(text)
}

// how reads auto, signal, systemd, chain, fifo:PATH and touch:PATH.
func (p *parser) how(path string, to *remediate.How) {
	text := ""
	p.text(path, &text, reloadHow)
	if method, file, _ := strings.Cut(text, ":"); text != "" {
		*to = remediate.How{Method: remediate.Method(method), Path: file}
	}
}

// errors renders what was found, in the order of the file.
func (p *parser) errors() Errors {
	sort.SliceStable(p.found, func(i, j int) bool { return p.found[i].at.offset < p.found[j].at.offset })
	var errs Errors
	for i, f := range p.found {
		if i == maxErrors {
			errs = append(errs, &Error{File: p.doc.name, Message: text.Plural(len(p.found)-i, "more error", "more errors"), Hint: "correct these first"})
			break
		}
		errs = append(errs, p.doc.errorAt(f.at, f.problem))
	}
	return errs
}
