package file

import (
	"path"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// maxApart bounds the groups that Apart makes: a follower of each has an inotify
// instance, of which a user has 128 (fs.inotify.max_user_instances).
const maxApart = 32

// Apart puts globs into groups that can be followed apart, each by a Files of its
// own: no two of them can match files of one folder, where a file's rotations and
// copies are looked for, and which is of one file system. What is more than 32
// groups is in the last one.
func Apart(globs []string) [][]string {
	var groups [][]string
	for _, g := range globs {
		var joined []string
		var apart [][]string
		at := -1 // where the first group stands that it shares a folder with
		for _, group := range groups {
			if !slices.ContainsFunc(group, func(other string) bool { return shareFolder(g, other) }) {
				apart = append(apart, group)
				continue
			}
			if at < 0 {
				at = len(apart)
				apart = append(apart, nil)
			}
			joined = append(joined, group...)
		}
		if at < 0 {
			at = len(apart)
			apart = append(apart, nil)
		}
		apart[at] = append(joined, g)
		groups = apart
	}
	if len(groups) > maxApart {
		groups[maxApart-1] = slices.Concat(groups[maxApart-1:]...)
		groups = groups[:maxApart]
	}
	return groups
}

// shareFolder says whether two globs may match files of one folder.
func shareFolder(a, b string) bool { return mayMeet(folder(a), folder(b)) }

// folder is where the files of a glob stand, as patterns of names.
func folder(glob string) []string {
	if !strings.HasSuffix(glob, "/**") {
		glob = path.Dir(glob)
	}
	// A slash in braces or brackets is none that divides names, or may be none.
	if i := strings.IndexAny(glob, `{[\`); i >= 0 && strings.Contains(glob[i:], "/") {
		glob = path.Dir(glob[:i]+"x") + "/**"
	}
	return strings.Split(strings.Trim(glob, "/"), "/")
}

// mayMeet says whether two paths of patterns may match the same path.
func mayMeet(a, b []string) bool {
	switch {
	case len(a) > 0 && a[0] == "**":
		return mayMeet(a[1:], b) || len(b) > 0 && mayMeet(a, b[1:])
	case len(b) > 0 && b[0] == "**":
		return mayMeet(b, a)
	case len(a) == 0 || len(b) == 0:
		return len(a) == len(b)
	}
	const meta = `*?{[\`
	switch x, y := strings.ContainsAny(a[0], meta), strings.ContainsAny(b[0], meta); {
	case x && y: // who knows
	case x && !doublestar.MatchUnvalidated(a[0], b[0]), y && !doublestar.MatchUnvalidated(b[0], a[0]), !x && !y && a[0] != b[0]:
		return false
	}
	return mayMeet(a[1:], b[1:])
}
