package rewrite_test

import (
	"strings"
	"testing"

	"github.com/davidwartell/go-grpcpool/conformance/internal/rewrite"
	"github.com/google/go-cmp/cmp"
)

var (
	from = rewrite.Function{Package: "google.golang.org/grpc", Name: "NewClient"}
	to   = rewrite.Function{Package: "example.com/shim", Name: "NewClient"}
)

func TestEveryMentionIsRewritten(t *testing.T) {
	for name, c := range map[string]struct {
		src, want string
		mentions  int
	}{
		"a call": {
			src:      "package p\n\nimport (\n\t\"google.golang.org/grpc\"\n)\n\nvar _, _ = grpc.NewClient(\"a\", grpc.EmptyDialOption{})\n",
			want:     "package p\n\nimport (\n\t\"google.golang.org/grpc\"; shim \"example.com/shim\"\n)\n\nvar _, _ = shim.NewClient(\"a\", grpc.EmptyDialOption{})\n",
			mentions: 1,
		},
		"a value, and nothing else of the package": {
			src:      "package p\n\nimport \"google.golang.org/grpc\"\n\nvar dial = grpc.NewClient\n",
			want:     "package p\n\nimport shim \"example.com/shim\"\n\nvar dial = shim.NewClient\n",
			mentions: 1,
		},
		"a single import that stays": {
			src:      "package p\n\nimport \"google.golang.org/grpc\"\n\nvar f, g = grpc.NewClient, grpc.Dial\n",
			want:     "package p\n\nimport \"google.golang.org/grpc\"; import shim \"example.com/shim\"\n\nvar f, g = shim.NewClient, grpc.Dial\n",
			mentions: 1,
		},
		"a renamed import": {
			src:      "package p\n\nimport rpc \"google.golang.org/grpc\"\n\nfunc f() { rpc.NewClient(\"\"); rpc.NewClient(\"\") }\n",
			want:     "package p\n\nimport shim \"example.com/shim\"\n\nfunc f() { shim.NewClient(\"\"); shim.NewClient(\"\") }\n",
			mentions: 2,
		},
		"a dot import": {
			src:      "package p\n\nimport . \"google.golang.org/grpc\"\n\nvar o DialOption\nvar f = NewClient\n",
			want:     "package p\n\nimport . \"google.golang.org/grpc\"; import shim \"example.com/shim\"\n\nvar o DialOption\nvar f = shim.NewClient\n",
			mentions: 1,
		},
		"a name that is taken": {
			src:      "package p\n\nimport \"google.golang.org/grpc\"\n\nvar shim = grpc.NewClient\n",
			want:     "package p\n\nimport shim_ \"example.com/shim\"\n\nvar shim = shim_.NewClient\n",
			mentions: 1,
		},
		"a comment beside it": {
			src:      "package p\n\nimport \"google.golang.org/grpc\"\n\n// grpc.NewClient is called.\nvar f = grpc.NewClient // grpc.NewClient\n",
			want:     "package p\n\nimport shim \"example.com/shim\"\n\n// grpc.NewClient is called.\nvar f = shim.NewClient // grpc.NewClient\n",
			mentions: 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, mentions, err := rewrite.Calls([]byte(c.src), from, to)
			if err != nil || mentions != c.mentions {
				t.Fatalf("%d mentions, error %v; want %d", mentions, err, c.mentions)
			}
			if diff := cmp.Diff(c.want, string(got)); diff != "" {
				t.Error(diff)
			}
			if strings.Count(c.src, "\n") != strings.Count(string(got), "\n") {
				t.Error("lines have other numbers")
			}
		})
	}
}

func TestWhatOnlyLooksLikeAMentionStays(t *testing.T) {
	for name, src := range map[string]string{
		"another package of that name": "package p\n\nimport \"example.com/grpc\"\n\nvar f = grpc.NewClient\n",
		"a variable of that name":      "package p\n\nimport \"google.golang.org/grpc\"\n\nfunc f() {\n\tvar grpc struct{ NewClient int }\n\t_ = grpc.NewClient\n}\n\nvar o grpc.DialOption\n",
		"a blank import":               "package p\n\nimport _ \"google.golang.org/grpc\"\n\nfunc NewClient() {}\n\nvar f = NewClient\n",
		"a method":                     "package p\n\nimport . \"google.golang.org/grpc\"\n\nvar o DialOption\nvar f = x.NewClient\n",
		"its own, beside a dot import": "package p\n\nimport . \"google.golang.org/grpc\"\n\nvar o DialOption\n\nfunc f(NewClient int) int { return NewClient }\n",
		"a comment and a string":       "package p\n\nimport \"google.golang.org/grpc\"\n\n// grpc.NewClient\nvar s, o = \"grpc.NewClient\", grpc.Dial\n",
	} {
		t.Run(name, func(t *testing.T) {
			got, mentions, err := rewrite.Calls([]byte(src), from, to)
			if err != nil || mentions != 0 || string(got) != src {
				t.Errorf("%d mentions, error %v, and the file became:\n%s", mentions, err, got)
			}
		})
	}
}

func TestAFileThatIsNoGoIsAnError(t *testing.T) {
	if _, _, err := rewrite.Calls([]byte("no Go"), from, to); err == nil || !strings.HasPrefix(err.Error(), "rewrite: ") {
		t.Errorf("error %v", err)
	}
}
