package file

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestApart(t *testing.T) {
	for _, tt := range []struct {
		globs []string
		want  [][]string
	}{
		{nil, nil},
		{[]string{"/a/*.log", "/b/*.log", "/a/x.log"}, [][]string{{"/a/*.log", "/a/x.log"}, {"/b/*.log"}}},
		{[]string{"/var/log/uwsgi/*.log", "/var/log/uwsgi/app/*.log"}, [][]string{{"/var/log/uwsgi/*.log"}, {"/var/log/uwsgi/app/*.log"}}},
		{[]string{"/a/b/x", "/a/*/y"}, [][]string{{"/a/b/x", "/a/*/y"}}},
		{[]string{"/a/b/c/x", "/q/x", "/a/**"}, [][]string{{"/a/b/c/x", "/a/**"}, {"/q/x"}}},
		{[]string{"/a/**/x", "/a/x"}, [][]string{{"/a/**/x", "/a/x"}}},
		{[]string{"/a/b*/x", "/a/c/x", "/a/bc/x"}, [][]string{{"/a/b*/x", "/a/bc/x"}, {"/a/c/x"}}},
		{[]string{"/a/x", "/b/x", "/c/x", "/{a,c}/y"}, [][]string{{"/a/x", "/c/x", "/{a,c}/y"}, {"/b/x"}}},
		{[]string{"/a/{b/c,d}/x", "/a/b/c/y", "/b/x"}, [][]string{{"/a/{b/c,d}/x", "/a/b/c/y"}, {"/b/x"}}},
		{[]string{"/x", "/a/x"}, [][]string{{"/x"}, {"/a/x"}}},
		{[]string{"/x", "/**/y"}, [][]string{{"/x", "/**/y"}}},
		{[]string{"/x", "/y*"}, [][]string{{"/x", "/y*"}}},
		{[]string{"/a[/]b/x", "/c/x"}, [][]string{{"/a[/]b/x", "/c/x"}}},
	} {
		if diff := cmp.Diff(tt.want, Apart(tt.globs)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", tt.globs, diff)
		}
	}
	var many []string
	for i := range 40 {
		many = append(many, fmt.Sprintf("/%d/*.log", i))
	}
	if groups := Apart(many); len(groups) != maxApart || len(groups[maxApart-1]) != 40-maxApart+1 {
		t.Errorf("%q", groups)
	}
}
