package shim_test

import (
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/davidwartell/go-grpcpool/conformance/shim"
)

func TestAChannelIsMadeOnlyWithAKnownSetting(t *testing.T) {
	for _, setting := range []string{shim.Default, shim.One} {
		t.Setenv(shim.Variable, setting)
		cc, err := shim.NewClient("passthrough:///nowhere", grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatalf("%s: %v", setting, err)
		}
		cc.Close()
	}
	for _, setting := range []string{"", "plain"} {
		t.Setenv(shim.Variable, setting)
		if _, err := shim.NewClient("passthrough:///nowhere", grpc.WithTransportCredentials(insecure.NewCredentials())); err == nil {
			t.Errorf("%q: a channel was made, and nobody knows which", setting)
		}
	}
}
