package scale_test

import (
	"context"
	"go/ast"
	"go/parser"
	gotoken "go/token" // another type of the tests has that name
	"log/slog"
	"math"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	"github.com/davidwartell/go-grpcpool/scale"
)

// optionCases has, for every option, arguments that are taken ("" is wanted) and
// arguments that are not.
func optionCases() []struct {
	name string
	opt  grpc.DialOption
	want string
} {
	const most = math.MaxInt64
	probe := func(context.Context, grpc.ClientConnInterface) error { return nil }
	builder := manual.NewBuilderWithScheme("x")
	budget, _ := scale.NewDialBudget(1, 1)
	return []struct {
		name string
		opt  grpc.DialOption
		want string
	}{
		{"WithMaxConnections", scale.WithMaxConnections(1), ""},
		{"WithMaxConnections", scale.WithMaxConnections(math.MaxInt), ""},
		{"WithMaxConnections", scale.WithMaxConnections(0), "scale: WithMaxConnections(0): want 1 or more"},
		{"WithMaxConnections", scale.WithMaxConnections(-1), "scale: WithMaxConnections(-1): want 1 or more"},
		{"WithMaxStreams", scale.WithMaxStreams(0), ""},
		{"WithMaxStreams", scale.WithMaxStreams(math.MaxInt), ""},
		{"WithMaxStreams", scale.WithMaxStreams(-1), "scale: WithMaxStreams(-1): want 0 (the server's limit) or more"},
		{"WithStreamsPerUnlimitedConnection", scale.WithStreamsPerUnlimitedConnection(0), ""},
		{"WithStreamsPerUnlimitedConnection", scale.WithStreamsPerUnlimitedConnection(-1), "scale: WithStreamsPerUnlimitedConnection(-1): want 0 (a single connection) or more"},
		{"WithShrinkAfter", scale.WithShrinkAfter(0), ""},
		{"WithShrinkAfter", scale.WithShrinkAfter(most), ""},
		{"WithShrinkAfter", scale.WithShrinkAfter(-1), "scale: WithShrinkAfter(-1ns): want 0 (never) or more"},
		{"WithProbeInterval", scale.WithProbeInterval(0), ""},
		{"WithProbeInterval", scale.WithProbeInterval(most), ""},
		{"WithProbeInterval", scale.WithProbeInterval(-time.Second), "scale: WithProbeInterval(-1s): want 0 (no probes) or more"},
		{"WithIdleProbeInterval", scale.WithIdleProbeInterval(0), ""},
		{"WithIdleProbeInterval", scale.WithIdleProbeInterval(most), ""},
		{"WithIdleProbeInterval", scale.WithIdleProbeInterval(-time.Second), "scale: WithIdleProbeInterval(-1s): want 0 (as often as WithProbeInterval) or more"},
		{"WithProbeTimeout", scale.WithProbeTimeout(most), ""},
		{"WithProbeTimeout", scale.WithProbeTimeout(0), "scale: WithProbeTimeout(0s): want more than 0"},
		{"WithProbeTimeout", scale.WithProbeTimeout(-time.Second), "scale: WithProbeTimeout(-1s): want more than 0"},
		{"WithProbe", scale.WithProbe(probe), ""},
		{"WithProbe", scale.WithProbe(nil), "scale: WithProbe(nil): want a function; leave the option out to use grpc.health.v1"},
		{"WithMaxConnectionAge", scale.WithMaxConnectionAge(0), ""},
		{"WithMaxConnectionAge", scale.WithMaxConnectionAge(most), ""},
		{"WithMaxConnectionAge", scale.WithMaxConnectionAge(-most), ""}, // none is replaced by age
		{"WithUnsupervised", scale.WithUnsupervised(), ""},
		{"WithHoldGoAway", scale.WithHoldGoAway(), ""},
		{"WithQueueInTransport", scale.WithQueueInTransport(), ""},
		{"WithLogger", scale.WithLogger(slog.New(slog.DiscardHandler)), ""},
		{"WithLogger", scale.WithLogger(nil), "scale: WithLogger(nil): want a logger; leave the option out to use grpc-go's log, or use slog.DiscardHandler to log nothing"},
		{"WithObserver", scale.WithObserver(new(scale.Observer)), ""},
		{"WithObserver", scale.WithObserver(nil), "scale: WithObserver(nil): want an Observer"},
		{"WithEvents", scale.WithEvents(func(scale.Event) {}), ""},
		{"WithEvents", scale.WithEvents(nil), "scale: WithEvents(nil): "},
		{"WithReplacer", scale.WithReplacer(new(scale.Replacer)), ""},
		{"WithReplacer", scale.WithReplacer(nil), "scale: WithReplacer(nil): "},
		{"WithMemory", scale.WithMemory(new(scale.Memory)), ""},
		{"WithMemory", scale.WithMemory(nil), "scale: WithMemory(nil): want a Memory"},
		{"WithDialBudget", scale.WithDialBudget(budget), ""},
		{"WithDialBudget", scale.WithDialBudget(nil), "scale: WithDialBudget: want a DialBudget made by NewDialBudget"},
		{"WithDialBudget", scale.WithDialBudget(new(scale.DialBudget)), "scale: WithDialBudget: want a DialBudget made by NewDialBudget"},
		{"WithResolvers", scale.WithResolvers(), ""},
		{"WithResolvers", scale.WithResolvers(builder), ""},
		{"WithResolvers", scale.WithResolvers([]resolver.Builder{builder, nil}...), "scale: WithResolvers: builder 2 of 2 is nil"},
		{"WithDefaultServiceConfig", scale.WithDefaultServiceConfig(`{}`), ""},
		{"WithDefaultServiceConfig", scale.WithDefaultServiceConfig(""), `scale: WithDefaultServiceConfig(""): want a service config in JSON`},
		{"WithDefaultServiceConfig", scale.WithDefaultServiceConfig(`{"loadBalancingConfig": 1}`), "scale: grpc: the provided default service config is invalid"},
	}
}

func TestAnArgumentThatIsNilOrOutOfRangeIsAnErrorThatNamesTheOption(t *testing.T) {
	covered := make(map[string]bool)
	for _, tc := range optionCases() {
		covered[tc.name] = true
		cc, err := scale.NewClient("localhost:1", grpc.WithTransportCredentials(insecure.NewCredentials()), tc.opt)
		if err == nil {
			_ = cc.Close()
		}
		switch {
		case tc.want == "" && err != nil:
			t.Errorf("%s: %v", tc.name, err)
		case tc.want != "" && (err == nil || !strings.HasPrefix(err.Error(), tc.want)):
			t.Errorf("%s: the error is %v, want %q", tc.name, err, tc.want)
		}
	}
	for _, name := range optionNames(t) {
		if !covered[name] {
			t.Errorf("the table has no case for %s", name)
		}
	}
}

// optionNames lists the functions of the package that return a dial option.
func optionNames(t *testing.T) (names []string) {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(gotoken.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range parsed.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "With") {
				names = append(names, f.Name.Name)
			}
		}
	}
	if len(names) == 0 {
		t.Fatal("no options found")
	}
	return names
}

func TestANilContextIsTakenForTheBackground(t *testing.T) {
	var none context.Context
	if ctx := scale.ContextWithPriority(none); ctx == nil || ctx.Err() != nil {
		t.Errorf("the context is %v", ctx)
	}
	c := newChannel(t, "passthrough:///127.0.0.1:1")
	c.Connect()
	eventually(t, "a reason", func() bool { return c.observer.PickError(none, "/x/y") != nil })
}
