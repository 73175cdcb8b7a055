package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// TestSizes keeps rooms small enough for one person: no file over 500 lines, no
// function over 80, no struct over 22 fields, no daemon's core of 15. Tests may
// be longer.
func TestSizes(t *testing.T) {
	files := 0
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && strings.HasPrefix(d.Name(), ".") && d.Name() != ".." && d.Name() != "../.." {
			return fs.SkipDir
		}
		if filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		files++
		positions := token.NewFileSet()
		file, err := parser.ParseFile(positions, path, nil, 0)
		if err != nil {
			return err
		}
		lines := func(n ast.Node) int {
			return positions.Position(n.End()).Line - positions.Position(n.Pos()).Line + 1
		}
		if n := positions.File(file.FileStart).LineCount(); n > 500 {
			t.Errorf("%s has %d lines, want at most 500", path, n)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if l := lines(n); l > 80 {
					t.Errorf("%s: %s has %d lines, want at most 80", path, n.Name.Name, l)
				}
			case *ast.TypeSpec:
				s, ok := n.Type.(*ast.StructType)
				if !ok {
					break
				}
				most := 22
				if n.Name.Name == "core" {
					most = 14
				}
				if fields := s.Fields.NumFields(); fields > most {
					t.Errorf("%s: %s has %d fields, want at most %d", path, n.Name.Name, fields, most)
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 50 {
		t.Errorf("only %d files were found", files)
	}
}
