package uwsgiconf

import (
	"slices"
	"strconv"
	"strings"
)

// hasArguments reports whether a custom option takes an argument
// (core/uwsgi.c uwsgi_opt_add_custom_option).
func hasArguments(template string) bool {
	return slices.ContainsFunc([]string{"$1", "$2", "$3"}, func(n string) bool { return strings.Contains(template, n) })
}

// expandLate puts what those custom options stand for that were declared behind
// where they are used behind all other options.
func (f *finder) expandLate() {
	if len(f.custom) == 0 {
		return
	}
	for i := 0; i < len(f.options); i++ { // what one stands for may be another
		o := f.options[i]
		if template, ok := f.custom[o.Name]; ok && !o.placeholder && !o.expanded {
			f.options[i].expanded = true
			f.expand(o.Option, template)
		}
	}
}

// expand is core/config.c uwsgi_opt_custom. When uWSGI takes what a custom option
// stands for depends on how it was declared, so that which of two is the last is
// not known: each is taken as one in a condition.
func (f *finder) expand(o Option, template string) {
	if f.depth++; f.depth > maxDepth {
		f.depth--
		f.unsure(o.At, "custom options (declare-option) stand for each other")
		return
	}
	literal := f.literal
	f.literal = true
	defer func() { f.depth, f.literal = f.depth-1, literal }()
	arguments := strings.FieldsFunc(o.Text, func(r rune) bool { return r == ' ' })
	if len(arguments) == 0 {
		arguments = []string{""}
	}
	fill := func(text string) string {
		for i, argument := range arguments[:min(len(arguments), maxArguments)] {
			mark := "$" + strconv.Itoa(i+1)
			if n := strings.Count(text, mark); n > 0 && f.produce(n*len(argument)) {
				text = strings.ReplaceAll(text, mark, argument)
			}
		}
		return text
	}
	for part := range strings.SplitSeq(template, ";") {
		if part == "" {
			continue
		}
		key, text, ok := strings.Cut(part, "=")
		if !ok {
			return
		}
		switch key = fill(key); {
		case key == "listen":
			f.unsure(o.At, "a custom option (declare-option) sets listen")
		default:
			f.add(Option{Name: key, Text: fill(text), At: o.At, Conditional: true})
		}
	}
}

// maxArguments is how many $1 a custom option may have.
const maxArguments = 9
