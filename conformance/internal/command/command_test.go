package command_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strings"
	"testing"

	"github.com/davidwartell/go-grpcpool/conformance/internal/command"
)

func TestTheExitCodeTellsFailedTestsFromACommandThatCouldNotWork(t *testing.T) {
	for name, c := range map[string]struct {
		failed  bool
		err     error
		code    int
		printed string
	}{
		"passed":                   {code: 0},
		"failed":                   {failed: true, code: 1},
		"could not work":           {err: errors.New("no go"), code: 2, printed: "it: no go\n"},
		"failed and was cut short": {failed: true, err: context.Canceled, code: 2, printed: "it: context canceled\n"},
		"asked for help":           {err: fmt.Errorf("flags: %w", flag.ErrHelp), code: 0},
	} {
		t.Run(name, func(t *testing.T) {
			var stderr strings.Builder
			code := command.Run("it", nil, &stderr, func(context.Context, []string) (bool, error) { return c.failed, c.err })
			if code != c.code || stderr.String() != c.printed {
				t.Errorf("code %d, printed %q; want %d, %q", code, stderr.String(), c.code, c.printed)
			}
		})
	}
}
