package config

import (
	"fmt"
	"slices"
	"strings"
)

// unknown notes each key and table that nobody asked for, but nothing below
// one that is already wrong, and each table that is none.
func (p *parser) unknown() {
	for _, e := range p.doc.entries {
		value := p.doc.values[e.path]
		_, isTable := value.(map[string]any)
		wantTable, known := p.known[e.path]
		switch {
		case known && wantTable && !isTable:
			p.badValue(e.path, fmt.Sprintf("%s must be a table, not %s", e.path, kindOf(value)),
				fmt.Sprintf(`write "[%s]", and its keys below`, e.path))
		case !known && p.known[e.table]:
			what, where := "key", ""
			if isTable {
				what = "table"
			}
			if e.table != "" {
				where = " in " + header(e.table)
			}
			p.badKey(e.path, "unknown "+what+" "+quoted(e.key)+where, p.nearest(e))
		}
	}
}

// nearest is the hint for an unknown key: a known one that is spelled like it
// in the same table, else the table where the key belongs, else one of another
// table that is spelled like it, else all keys here.
func (p *parser) nearest(e entry) string {
	var here, belongs, others []string
	places := map[string]string{} // where others belong
	for _, path := range p.asked {
		table, key := "", path
		place := "at the top, above the first table"
		if i := strings.LastIndexByte(path, '.'); i >= 0 {
			table, key = path[:i], path[i+1:]
			place = "in " + header(table)
		}
		switch {
		case strings.ContainsAny(key, `["`):
		case table == e.table:
			here = append(here, key)
		case key == e.key:
			belongs = append(belongs, place)
		case places[key] == "":
			others = append(others, key)
			places[key] = place
		}
	}
	slices.Sort(here)
	slices.Sort(belongs)
	if key := closest(e.key, here); key != "" {
		return fmt.Sprintf("did you mean %q?", key)
	}
	if belongs != nil {
		return "it belongs " + strings.Join(slices.Compact(belongs), " or ")
	}
	if key := closest(e.key, others); key != "" {
		return fmt.Sprintf("did you mean %q? It belongs %s", key, places[key])
	}
	return "known here: " + strings.Join(here, ", ")
}

// header writes a table's path as the file would.
func header(table string) string {
	if name, _, ok := strings.Cut(table, "["); ok {
		return "[[" + name + "]]"
	}
	return "[" + table + "]"
}

// closest is the first of the keys that are spelled most like key, "" if none
// is.
func closest(key string, keys []string) (best string) {
	least := max(2, len(key)/3) + 1
	for _, k := range keys {
		if d := distance(key, k); d < least {
			best, least = k, d
		}
	}
	return best
}

// distance is how many characters one must insert, take out or change (or
// swap with a neighbour) to make b of a.
func distance(a, b string) int {
	const far = 1 << 30
	if len(a) > 2*len(b)+8 {
		return far
	}
	var before, last []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row = last, row, make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := last[j-1]
			if a[i-1] != b[j-1] {
				change++
			}
			row[j] = min(change, last[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}
