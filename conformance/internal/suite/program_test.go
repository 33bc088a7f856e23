package suite_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/davidwartell/go-grpcpool/conformance/internal/results"
	"github.com/davidwartell/go-grpcpool/conformance/internal/rewrite"
	"github.com/davidwartell/go-grpcpool/conformance/internal/suite"
	"github.com/google/go-cmp/cmp"
)

// app is a program of two modules that lie beside each other in its repository:
// example.com/app, whose tests run, and example.com/client, which makes its clients.
var app = map[string]string{
	"client/go.mod":    "module example.com/client\n\ngo 1.26\n\nrequire example.com/rpc v0.0.0\n",
	"client/client.go": "package client\n\nimport \"example.com/rpc\"\n\nfunc New() string { return rpc.NewClient() }\n",
	"app/go.mod": "module example.com/app\n\ngo 1.26\n\n" +
		"require (\n\texample.com/client v1.0.0\n\texample.com/rpc v0.0.0\n\texample.com/lost v1.0.0\n)\n\n" +
		"replace (\n\texample.com/client => ../elsewhere\n\texample.com/lost => ../lost\n)\n",
	"app/internal/none.go": "package internal\n",
	"app/app.go":           "package app\n\nimport \"example.com/rpc\"\n\nvar Own = rpc.NewClient()\n",
	"app/lost.go":          "package app\n\nimport _ \"example.com/lost\"\n",
	"app/app_test.go": `package app

import (
	"os"
	"testing"

	"example.com/client"
)

func TestEveryClientIsReplaced(t *testing.T) {
	want := os.Getenv("` + variable + `")
	if Own != want || client.New() != want {
		t.Errorf("%s and %s, want %s", Own, client.New(), want)
	}
}

func TestAPlainClientIsWanted(t *testing.T) {
	if client.New() != "plain" {
		t.Error(client.New())
	}
}
`,
}

func TestAProgramIsRewrittenWithTheModulesThatMakeItsClients(t *testing.T) {
	dir := write(t, app)
	module := func(name, version string) suite.Module {
		return suite.Module{Path: "example.com/" + name, Version: version, Dir: filepath.Join(dir, name)}
	}
	w, err := suite.PrepareProgram(t.Context(), suite.Config{
		Tested:   module("app", "v1.0.0"),
		Replaced: []suite.Module{module("shim", ""), module("rpc", "")},
		From:     rewrite.Function{Package: "example.com/rpc", Name: "NewClient"},
		To:       rewrite.Function{Package: "example.com/shim", Name: "NewClient"},
		Variable: variable,
		Cache:    t.TempDir(),
	}, suite.Program{
		Companions: []suite.Module{module("client", "v1.0.0")},
		Unserved:   []string{"example.com/lost"},
		Without:    []string{"lost.go"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	for _, idle := range []string{"./nothing/...", "./internal"} {
		if _, err := w.Resolve(t.Context(), []string{"./...", idle}); err == nil || !strings.Contains(err.Error(), idle) {
			t.Errorf("%s matches no test: error %v", idle, err)
		}
	}
	packages, err := w.Resolve(t.Context(), []string{"./..."})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	w.Run(t.Context(), suite.Plan{
		Packages: packages,
		Settings: []string{"default"},
		Attempts: 1,
		Parallel: 1,
		Timeout:  time.Minute,
		Patience: time.Minute,
		Report: func(r suite.Report) {
			if r.Err != nil {
				t.Error(r.Err)
			}
			for _, f := range r.Findings {
				got = append(got, string(f.Kind)+" "+f.Package+" "+f.Test)
			}
		},
	})
	want := []string{string(results.Difference) + " . TestAPlainClientIsWanted"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
}
