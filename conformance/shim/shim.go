// Package shim is what grpc-go's tests call instead of grpc.NewClient.
package shim

import (
	"fmt"
	"os"
	"slices"

	"github.com/davidwartell/go-grpcpool/scale"
	"google.golang.org/grpc"
)

// Variable is the environment variable that holds the setting.
const Variable = "GRPCPOOL_CONFORMANCE"

// The settings that grpc-go's tests run with.
const (
	Default = "default" // scale.NewClient and nothing else
	One     = "one"     // with WithMaxConnections(1)
)

// NewClient is scale.NewClient with the options of the setting. Without a setting
// it fails, so that no run passes on plain channels unnoticed.
func NewClient(target string, opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	switch setting := os.Getenv(Variable); setting {
	case Default:
		return scale.NewClient(target, opts...)
	case One:
		return scale.NewClient(target, append(slices.Clone(opts), scale.WithMaxConnections(1))...)
	default:
		return nil, fmt.Errorf("shim: %s is %q, not %q or %q", Variable, setting, Default, One)
	}
}
