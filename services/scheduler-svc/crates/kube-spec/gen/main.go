// Writes ../data/types.txt: the fields of the Kubernetes API types as facts (JSON name, protobuf number, type,
// merge keys, defaults), read from the struct tags and markers of k8s.io/api and k8s.io/apimachinery.
//
//	go run . $(go list -m -f '{{.Dir}}' k8s.io/api) $(go list -m -f '{{.Dir}}' k8s.io/apimachinery) > ../data/types.txt
package main

import (
	"bufio"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"sort"
	"strings"
)

var packages = []string{
	"admissionregistration/v1", "apps/v1", "authentication/v1", "authorization/v1", "autoscaling/v1", "autoscaling/v2",
	"batch/v1", "certificates/v1", "coordination/v1", "core/v1", "discovery/v1", "events/v1", "flowcontrol/v1",
	"networking/v1", "node/v1", "policy/v1", "rbac/v1", "scheduling/v1", "storage/v1",
}

type named struct {
	pkg  string
	expr ast.Expr
	doc  string
	imps map[string]string
}

var types = map[string]named{}

var special = map[string]string{
	"meta/v1.Time": "time", "meta/v1.MicroTime": "microtime", "meta/v1.Duration": "duration",
	"meta/v1.FieldsV1": "fieldsv1", "resource.Quantity": "quantity", "intstr.IntOrString": "intorstring",
	"runtime.RawExtension": "raw", "types.UID": "string", "types.NodeName": "string", "types.NamespacedName": "string",
}

func main() {
	api, machinery := os.Args[1], os.Args[2]
	for _, p := range packages {
		load(filepath.Join(api, p), p)
	}
	load(filepath.Join(machinery, "pkg/apis/meta/v1"), "meta/v1")
	var names []string
	for name := range types {
		names = append(names, name)
	}
	sort.Strings(names)
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	for _, name := range names {
		t := types[name]
		st, ok := t.expr.(*ast.StructType)
		if !ok || special[name] != "" {
			continue
		}
		lines := fields(t, st)
		if len(lines) == 0 && !strings.Contains(t.doc, "+k8s") {
			continue
		}
		fmt.Fprintf(out, "= %s\n", name)
		for _, l := range lines {
			fmt.Fprintln(out, l)
		}
	}
}

func load(dir, pkg string) {
	fset := token.NewFileSet()
	files, _ := filepath.Glob(filepath.Join(dir, "*.go"))
	for _, f := range files {
		base := filepath.Base(f)
		if strings.HasSuffix(base, "_test.go") || strings.HasPrefix(base, "generated.") || strings.HasPrefix(base, "zz_") {
			continue
		}
		file, err := parser.ParseFile(fset, f, nil, parser.ParseComments)
		if err != nil {
			panic(err)
		}
		imps := map[string]string{}
		for _, i := range file.Imports {
			path := strings.Trim(i.Path.Value, `"`)
			short := strings.TrimPrefix(strings.TrimPrefix(path, "k8s.io/api/"), "k8s.io/apimachinery/pkg/")
			short = strings.TrimPrefix(strings.TrimPrefix(short, "apis/"), "api/")
			short = strings.TrimPrefix(short, "util/")
			name := filepath.Base(path)
			if i.Name != nil {
				name = i.Name.Name
			}
			imps[name] = short
		}
		for _, d := range file.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.TYPE {
				continue
			}
			for _, s := range g.Specs {
				ts := s.(*ast.TypeSpec)
				doc := g.Doc.Text()
				raw := ""
				for _, c := range comments(g.Doc, ts.Doc) {
					raw += c + "\n"
				}
				types[pkg+"."+ts.Name.Name] = named{pkg, ts.Type, doc + raw, imps}
			}
		}
	}
}

func comments(groups ...*ast.CommentGroup) (out []string) {
	for _, g := range groups {
		if g != nil {
			for _, c := range g.List {
				out = append(out, strings.TrimSpace(strings.TrimPrefix(c.Text, "//")))
			}
		}
	}
	return
}

func qualify(t named, e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return t.pkg + "." + e.Name
	case *ast.SelectorExpr:
		p := t.imps[e.X.(*ast.Ident).Name]
		if p == "core" {
			p = "core/v1"
		}
		return p + "." + e.Sel.Name
	}
	return ""
}

var basic = map[string]string{
	"string": "string", "bool": "bool", "int32": "int32", "int64": "int64", "int": "int64", "uint32": "int64",
	"uint64": "int64", "float64": "double", "byte": "byte", "uint8": "byte",
}

func render(t named, e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return "*" + render(t, e.X)
	case *ast.ArrayType:
		inner := render(t, e.Elt)
		if inner == "byte" {
			return "bytes"
		}
		return "[]" + inner
	case *ast.MapType:
		return "map:" + render(t, e.Value)
	case *ast.InterfaceType:
		return "any"
	case *ast.Ident:
		if b, ok := basic[e.Name]; ok {
			return b
		}
	}
	name := qualify(t, e)
	if s, ok := special[name]; ok {
		return s
	}
	d, ok := types[name]
	if !ok {
		return "?" + name
	}
	if _, ok := d.expr.(*ast.StructType); ok {
		return name
	}
	inner := render(d, d.expr)
	if strings.Contains(d.doc, "+protobuf.nullable") {
		return "wrap:" + inner
	}
	return inner
}

func fields(t named, st *ast.StructType) (out []string) {
	for _, f := range st.Fields.List {
		if f.Tag == nil {
			continue
		}
		tag := reflect.StructTag(strings.Trim(f.Tag.Value, "`"))
		js, pb := tag.Get("json"), tag.Get("protobuf")
		if js == "-" || pb == "-" && js == "" {
			continue
		}
		parts := strings.Split(js, ",")
		jname := parts[0]
		opts := map[string]bool{}
		for _, p := range parts[1:] {
			opts[p] = true
		}
		if pb == "" && jname == "" {
			if qualify(t, f.Type) != "meta/v1.TypeMeta" && qualify(t, f.Type) != "meta/v1.ListInterface" {
				fmt.Fprintln(os.Stderr, "inline without protobuf:", t.pkg, qualify(t, f.Type))
			}
			continue
		}
		num := "0"
		if pb != "" && pb != "-" {
			num = strings.Split(pb, ",")[1]
			for _, p := range strings.Split(pb, ",") {
				if strings.HasPrefix(p, "name=") && jname != "" && p[5:] != jname {
					fmt.Fprintln(os.Stderr, "name differs:", t.pkg, jname, p)
				}
			}
		}
		if jname == "" {
			jname = "-"
		}
		line := jname + " " + num + " " + render(t, f.Type)
		marks := comments(f.Doc)
		optional, required := false, false
		lt, def := "", ""
		var keys []string
		for _, m := range marks {
			switch {
			case m == "+optional":
				optional = true
			case m == "+required":
				required = true
			case strings.HasPrefix(m, "+listType="):
				lt = strings.TrimPrefix(m, "+listType=")
			case strings.HasPrefix(m, "+structType=atomic"), strings.HasPrefix(m, "+mapType=atomic"):
				lt = "atomic"
			case strings.HasPrefix(m, "+listMapKey="):
				keys = append(keys, strings.TrimPrefix(m, "+listMapKey="))
			case strings.HasPrefix(m, "+default="):
				def = strings.ReplaceAll(strings.TrimPrefix(m, "+default="), " ", "")
			}
		}
		if opts["omitempty"] {
			line += " o"
		}
		if opts["omitzero"] {
			line += " z"
		}
		if opts["inline"] || jname == "-" {
			line += " i"
		}
		if required || !optional && !opts["omitempty"] {
			line += " r"
		}
		if v := tag.Get("patchStrategy"); v != "" {
			line += " p=" + v
		}
		if v := tag.Get("patchMergeKey"); v != "" {
			line += " k=" + v
		}
		if lt != "" {
			line += " l=" + lt
			if len(keys) > 0 {
				line += ":" + strings.Join(keys, ",")
			}
		}
		if def != "" && strings.HasPrefix(def, "ref(") {
			def = ""
		}
		if def != "" {
			line += " d=" + def
		}
		out = append(out, line)
	}
	if s := structAtomic(t); s {
		out = append([]string{"! atomic"}, out...)
	}
	return
}

func structAtomic(t named) bool { return strings.Contains(t.doc, "+structType=atomic") }
