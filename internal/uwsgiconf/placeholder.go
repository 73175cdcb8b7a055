package uwsgiconf

import (
	"path/filepath"
	"strings"
)

// unknownMagic stands for magic that only the process itself knows: its user,
// the time, the number of CPUs.
const unknownMagic = "\x00"

// fillMagic is core/uwsgi.c config_magic_table_fill. A symbolic link to a
// directory is not resolved, as uWSGI would.
func (f *finder) fillMagic(path, given, section string) {
	dir, name := filepath.Split(path)
	m := map[byte]string{
		'o': given, 'p': path, 's': name, 'd': dir, 'x': section,
		'n': strings.TrimSuffix(name, filepath.Ext(name)),
		'e': strings.TrimPrefix(filepath.Ext(name), "."),
		'c': filepath.Base(dir),
	}
	parts := strings.FieldsFunc(filepath.Clean(dir), func(r rune) bool { return r == '/' })
	for i, digit := range "0123456789" {
		m[byte(digit)] = ""
		if i < len(parts) {
			m[byte(digit)] = parts[i]
		}
	}
	for k, v := range m {
		f.magic[k] = v
		if !f.firstFile && 'a' <= k && k <= 'z' {
			f.magic[k-'a'+'A'] = v
		}
	}
	f.firstFile = true
	f.magic['%'], f.magic['('] = "%", "%("
	f.magic['h'] = f.in.Hostname
	if len(f.in.Dirs) > 0 {
		f.magic['v'] = f.in.Dirs[0]
	}
	for _, c := range []byte("tTVkuUgGijIJb") {
		f.magic[c] = unknownMagic
	}
}

// substitute is core/utils.c magic_sub: any other character behind a percent
// sign is swallowed with it.
func (f *finder) substitute(text []byte) []byte {
	out := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		if text[i] == '%' && i+1 < len(text) {
			i++
			value := f.magic[text[i]]
			if !f.produce(len(value)) {
				value = unknownMagic
			}
			out = append(out, value...)
			continue
		}
		out = append(out, text[i])
	}
	return out
}

// produce counts what is put in for a placeholder, and reports whether it may be.
func (f *finder) produce(n int) bool {
	if f.produced += n; f.produced <= maxProduced {
		return true
	}
	if f.unread == nil {
		f.unsure("its configuration", "the placeholders in it make more than %d bytes", maxProduced)
	}
	return false
}

// fillIn does the passes of uwsgi_setup over one option: $(ENV), @(file), then
// %(option). What uWSGI calculates, as %(workers * 2), is not known here
// (core/config.c uwsgi_manage_placeholder).
func (f *finder) fillIn(o *option) {
	if o.applied {
		return
	}
	f.replace(o, '$', f.getenv)
	f.replace(o, '@', func(file string) (string, bool) {
		if f.files++; f.files > maxFiles {
			return "", false
		}
		_, text, err := f.read(file)
		return strings.TrimRight(string(text), "\r\n"), err == nil
	})
	f.replace(o, '%', func(key string) (string, bool) {
		if strings.Contains(key, " ") {
			o.Unknown = "what %(…) calculates in it is not known here"
			return "", false
		}
		return f.exported(key)
	})
	if strings.Contains(o.Text, unknownMagic) {
		o.Unknown = "it holds a placeholder that is not known here"
	}
}

// maxFilled bounds a text whose placeholders grow by holding themselves, at which
// uWSGI never ends.
const maxFilled = 1 << 13

// replace is core/utils.c uwsgi_apply_config_pass: what was put in is looked
// through again; what has no value stays. What goes beyond the bounds is left as
// it is, and not known.
func (f *finder) replace(o *option, symbol byte, value func(string) (string, bool)) {
	text := o.Text
	defer func() { o.Text = text }()
	for from := 0; ; {
		start := strings.Index(text[from:], string(symbol)+"(")
		if start < 0 {
			break
		}
		start += from
		end, depth := start+2, 0
		for ; end < len(text) && (text[end] != ')' || depth > 0); end++ {
			switch text[end] {
			case '(':
				depth++
			case ')':
				depth--
			}
		}
		if end == len(text) {
			break
		}
		if f.fillIns++; f.fillIns > maxFillIns || len(text) >= maxFilled {
			o.Unknown = "it has more placeholders than are filled in here"
			break
		}
		v, ok := value(text[start+2 : end])
		if !ok || end == start+2 {
			from = end
			continue
		}
		if !f.produce(len(text) + len(v)) {
			o.Unknown = "it has more placeholders than are filled in here"
			break
		}
		text, from = text[:start]+v+text[end+1:], 0
	}
}

func (f *finder) getenv(name string) (string, bool) {
	for _, kv := range f.in.Environ {
		if k, v, ok := strings.Cut(kv, "="); ok && k == name {
			return v, true
		}
	}
	return "", false
}

func (f *finder) exported(name string) (string, bool) {
	i, ok := f.first[name]
	if !ok {
		return "", false
	}
	return f.options[i].Text, true
}
