package snappy

import (
	"testing"

	"google.golang.org/grpc/encoding"
)

type somebodyElses struct{ encoding.Compressor }

func TestACompressorOfTheSameNameStays(t *testing.T) {
	other := &somebodyElses{Compressor()}
	encoding.RegisterCompressor(other)
	defer encoding.RegisterCompressor(Compressor())

	register()
	if encoding.GetCompressor(Name) != other {
		t.Error("it was replaced")
	}
	if Registered() {
		t.Error("Registered takes it for ours")
	}
	encoding.RegisterCompressor(Compressor())
	if !Registered() {
		t.Error("Registered does not know ours")
	}
}
